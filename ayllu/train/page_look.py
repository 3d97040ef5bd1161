"""The look of a run's report beside what all pages share, and the script that reads curves under a pointer."""

MORE_STYLE = """
main,nav{max-width:1080px}
:root{--c0:#b4532a;--c1:#26658c;--c2:#2f7d4f;--c3:#8a5a00;--c4:#7a4a9c;--try:#7a4a9c;--grow:#2f7d4f;--shrink:#b46a00;
--bad-step:#b3261e;--cool:#1c7f92}
@media(prefers-color-scheme:dark){:root:not([data-theme=light]){--c0:#e58a5c;--c1:#60aad6;--c2:#6cc08b;--c3:#d9b45b;
--c4:#b99be0;--try:#b99be0;--grow:#6cc08b;--shrink:#e0a44a;--bad-step:#f2766d;--cool:#5cc3d6}}
:root[data-theme=dark]{--c0:#e58a5c;--c1:#60aad6;--c2:#6cc08b;--c3:#d9b45b;--c4:#b99be0;--try:#b99be0;--grow:#6cc08b;
--shrink:#e0a44a;--bad-step:#f2766d;--cool:#5cc3d6}
.chips:empty{display:none}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.faint{--c:var(--dim)}
.do-try{--c:var(--try)}.do-grow{--c:var(--grow)}.do-shrink{--c:var(--shrink)}.do-skip,.do-roll-back{--c:var(--bad-step)}
.do-cooldown{--c:var(--cool)}.do-stop,.do-hold{--c:var(--ink)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.6rem}
.tiles>span{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:.6rem .8rem;line-height:1.3}
.tiles b{display:block;font-size:1.25rem;color:var(--ink);font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:1.6rem 2rem;
margin-top:.8rem}
.chart{display:grid;grid-template-columns:3.4rem 1fr;grid-template-rows:auto 210px 1.4rem;min-width:0}
.chart figcaption{grid-column:1/3;text-align:left;font-size:.8rem;display:flex;flex-wrap:wrap;gap:.1rem .9rem;
padding-bottom:.5rem;color:var(--dim);align-content:end}
.chart figcaption b{width:100%;color:var(--ink);font-size:.92rem}
.key{white-space:nowrap}.key i{display:inline-block;width:.8em;height:.8em;border-radius:3px;background:var(--c);
margin-right:.35em;vertical-align:-.05em}
.key output{color:var(--ink);font-variant-numeric:tabular-nums}
.left,.below,.plot{position:relative}
.left span,.below span{position:absolute;font-size:.72rem;color:var(--dim);font-variant-numeric:tabular-nums;
white-space:nowrap}
.left span{right:.5rem;transform:translateY(-50%)}
.below{grid-column:2}.below span{transform:translateX(-50%);top:.25rem}
.plot{border:1px solid var(--edge);border-radius:6px;overflow:hidden;touch-action:pan-y;cursor:crosshair}
.plot svg{width:100%;height:100%;display:block}
.plot path{fill:none;vector-effect:non-scaling-stroke}
.grid{stroke:var(--edge);stroke-width:1}
.line{stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.faint{stroke-width:1;opacity:.45}
.mark{stroke:var(--c);stroke-width:1;stroke-dasharray:4 3;opacity:.75}
.rule{position:absolute;top:0;bottom:0;width:1px;background:var(--ink);opacity:.5;display:none}
.at{position:absolute;top:.2rem;right:.4rem;font:.72rem system-ui;color:var(--dim);background:var(--card);
padding:0 .3rem;
border-radius:4px}
.at:empty{display:none}
.plain{font-size:.85rem;width:100%}.plain th{position:static;color:var(--dim);text-align:right;padding:.25rem .8rem}
.plain td{padding:.25rem .8rem;border-top:1px solid var(--edge);vertical-align:top}
.plain td:first-child,.plain th:first-child{text-align:left;padding-left:0}
.plain tr:first-child:empty,.words tr:first-child th:empty{padding:0}
.words td,#data td:nth-child(-n+3),#data th:nth-child(-n+3){text-align:left}
.words td:last-child{width:60%}
#settings .words td:nth-child(2){max-width:26rem;overflow-wrap:anywhere}
#settings code{overflow-wrap:anywhere}
details{border-top:1px solid var(--edge);padding:.4rem 0}summary{cursor:pointer;color:var(--dim)}
details[open]>summary{margin-bottom:.4rem}
blockquote{margin:.4rem 0;padding:.5rem .8rem;background:var(--ground);border-left:3px solid var(--accent);
border-radius:0 8px 8px 0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.92rem}
@media(max-width:520px){.chart{grid-template-columns:2.7rem 1fr;grid-template-rows:auto 180px 1.4rem}
.left span{right:.3rem}.plain td,.plain th{padding:.25rem .4rem}.words td:last-child{width:auto}}
"""

MORE_SCRIPT = """
document.querySelectorAll('.plot').forEach(plot=>{
const {x,lines}=JSON.parse(plot.dataset.points),
  keys=[...plot.parentNode.querySelectorAll('output')].slice(0,lines.length),
rule=plot.querySelector('.rule'),at=plot.querySelector('.at'),last=keys.map(key=>key.textContent);
plot.onpointermove=plot.onpointerdown=event=>{const box=plot.getBoundingClientRect(),
part=Math.min(1,Math.max(0,(event.clientX-box.left)/box.width)),value=x[0]+part*(x[1]-x[0]);let nearest=null;
lines.forEach((line,i)=>{if(!line.length)return;
const point=line.reduce((a,b)=>Math.abs(b[0]-value)<Math.abs(a[0]-value)?b:a);keys[i].textContent=point[1];
if(nearest===null||Math.abs(point[0]-value)<Math.abs(nearest-value))nearest=point[0]});
rule.style.display='block';rule.style.left=100*(nearest-x[0])/(x[1]-x[0])+'%';
at.textContent=(body.dataset.lang==='zh'?'第 '+nearest+' 步':'step '+nearest)};
plot.onpointerleave=()=>{keys.forEach((key,i)=>key.textContent=last[i]);rule.style.display='none';at.textContent=''}});
"""
