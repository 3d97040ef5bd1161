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
