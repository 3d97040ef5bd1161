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
