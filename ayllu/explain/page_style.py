"""The look of the walk's page: its shell, style and the few lines of script (language, colours, picked token)."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$plain_title</title><style>$style</style></head><body data-lang="en">
<nav><button id="lang">中文</button><button id="theme">$theme</button></nav>
<main><h1>$title</h1><p class="lead">$intro</p><p class="model">$model</p>
<div class="chips">$chips</div><p class="pick">$pick</p>
$steps</main><script>$script</script></body></html>
"""

STYLE = """
:root{--ground:#f6f5f1;--card:#fff;--ink:#22252b;--dim:#6b7280;--edge:#e2e0d8;--accent:#b4532a;--plus:180,83,42;
--minus:38,101,140;--good:#2f7d4f;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root:not([data-theme=light]){--ground:#15171b;--card:#1e2127;--ink:#e6e4de;
--dim:#9aa0aa;--edge:#31353d;--accent:#e58a5c;--plus:229,138,92;--minus:96,170,214;--good:#6cc08b;--bad:#f2766d}}
:root[data-theme=dark]{--ground:#15171b;--card:#1e2127;--ink:#e6e4de;--dim:#9aa0aa;--edge:#31353d;--accent:#e58a5c;
--plus:229,138,92;--minus:96,170,214;--good:#6cc08b;--bad:#f2766d}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,"Noto Sans","Noto Sans CJK SC",
"PingFang SC","Microsoft YaHei",sans-serif}
body[data-lang=en] [lang=zh],body[data-lang=zh] [lang=en]{display:none}
main{max-width:880px;margin:0 auto;padding:1rem 1rem 4rem}
nav{display:flex;justify-content:flex-end;gap:.5rem;max-width:880px;margin:0 auto;padding:.75rem 1rem 0}
button{font:inherit;color:inherit;background:var(--card);border:1px solid var(--edge);border-radius:8px;
padding:.2rem .7rem;cursor:pointer}
button:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
h1{font-size:clamp(1.6rem,5vw,2.3rem);line-height:1.2;margin:.4em 0 .3em}
h2{font-size:1.15rem;margin:0}
.lead{max-width:62ch}.model,.pick,small,.line,.axes,.dim{color:var(--dim)}.model{font-size:.9rem}.pick{font-size:.85rem}
.chips{display:flex;flex-wrap:wrap;gap:.4rem;position:sticky;top:0;padding:.6rem 0;background:var(--ground);z-index:1}
.chip{display:flex;flex-direction:column;align-items:center;line-height:1.25;padding:.25rem .6rem}
.chip i{font-style:normal;font-size:.7rem;color:var(--dim)}
.chip[aria-pressed=true]{border-color:var(--accent);box-shadow:inset 0 0 0 1px var(--accent)}
section{background:var(--card);border:1px solid var(--edge);border-radius:14px;padding:1rem 1.1rem;margin:1rem 0}
section header{display:flex;align-items:center;gap:.6rem}
.number{flex:none;display:grid;place-items:center;width:1.8rem;height:1.8rem;border-radius:50%;background:var(--accent);
color:var(--card);font-size:.85rem;font-weight:600}
.tag{margin-left:auto;font-size:.78rem;color:var(--dim);border:1px solid var(--edge);border-radius:99px;
padding:.05rem .6rem;white-space:nowrap}
section p{margin:.5rem 0}
.formula{display:flex;flex-wrap:wrap;justify-content:space-between;gap:.2rem 1rem;align-items:baseline;margin:.5rem 0;
padding:.5rem .8rem;border-left:3px solid var(--accent);background:var(--ground);border-radius:0 8px 8px 0}
.formula code{font:1rem/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
.line{font:.78rem ui-monospace,"DejaVu Sans Mono",monospace}
.shape{margin:.9rem 0 .3rem;font-size:.92rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.78rem;font-variant-numeric:tabular-nums}
th{font-weight:500;text-align:right;padding:.15rem .6rem .15rem 0;white-space:nowrap;position:sticky;left:0;
background:var(--card)}
td{text-align:right;padding:.15rem .4rem}
.heat td{min-width:5.2em}
.left{text-align:left}
.ids{font-size:.9rem}.ids td,.ids th{padding:.15rem 1.2rem .15rem 0}
.heat td{border:1px solid var(--card);border-radius:4px}
.plus{background:rgba(var(--plus),var(--a))}.minus{background:rgba(var(--minus),var(--a))}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:.8rem}
figure{margin:0}figcaption{font-size:.75rem;color:var(--dim);text-align:center}
.maps svg{width:100%;display:block;border:1px solid var(--edge);border-radius:6px;background:var(--ground)}
rect{fill:rgba(var(--plus),var(--a))}
.lines{width:100%}.lines polyline{fill:none;stroke:rgb(var(--minus));stroke-width:1.5;opacity:.6}
.lines line{stroke:var(--edge)}.lines text{fill:var(--dim);font-size:11px;text-anchor:middle}
.lines .end{text-anchor:end}
.bars{width:100%;font-size:.9rem}.bars th{width:1%}.bars td{width:1%}.bars .bar{width:97%}
.bar span{display:block;height:.9rem;min-width:1px;background:rgb(var(--plus));border-radius:3px}
.check{font-size:.82rem;font-variant-numeric:tabular-nums}.good{color:var(--good)}.bad{color:var(--bad);font-weight:700}
body.picked tr[data-t]:not(.on){opacity:.35}
body.picked rect:not(.on){opacity:.3}
body.picked polyline:not(.on){opacity:.12}
polyline.on{stroke:rgb(var(--plus))!important;stroke-width:3!important;opacity:1!important}
@media(max-width:520px){section{padding:.8rem .8rem;border-radius:10px}.maps{grid-template-columns:repeat(2,1fr)}
.chips{flex-wrap:nowrap;overflow-x:auto}.chip{flex:none}}
"""

SCRIPT = """
const root=document.documentElement,body=document.body,byId=id=>document.getElementById(id);
function speak(l){body.dataset.lang=l;root.lang=l==='zh'?'zh-CN':'en';
byId('lang').textContent=l==='zh'?'English':'中文'}
speak(new URLSearchParams(location.search).get('lang')||(navigator.language.startsWith('zh')?'zh':'en'));
byId('lang').onclick=()=>speak(body.dataset.lang==='zh'?'en':'zh');
byId('theme').onclick=()=>{const system=matchMedia('(prefers-color-scheme:dark)').matches;
const dark=root.dataset.theme?root.dataset.theme==='dark':system;
root.dataset.theme=dark?'light':'dark'};
let picked=null;
document.querySelectorAll('.chip').forEach(chip=>chip.onclick=()=>{picked=picked===chip.dataset.t?null:chip.dataset.t;
body.classList.toggle('picked',picked!==null);
document.querySelectorAll('[data-t]').forEach(e=>{e.classList.toggle('on',e.dataset.t===picked);
if(e.classList.contains('chip'))e.setAttribute('aria-pressed',e.dataset.t===picked)})});
"""
