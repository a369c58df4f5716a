const element = name => document.getElementById(name);
const figure = element('figure');
const subnets = JSON.parse(element('subnets').textContent);
let chosen = null;

function place() {  // a ring around the chosen subnet, wherever it is in this view
  const last = figure.data.length - 1;
  let x = [], y = [];
  if (chosen !== null) {
    for (const trace of figure.data.slice(0, last)) {
      const index = Array.from(trace.customdata || []).indexOf(chosen);
      if (index >= 0) { x = [trace.x[index]]; y = [trace.y[index]]; break; }
    }
  }
  Plotly.restyle(figure, {x: [x], y: [y]}, [last]);
}

function choose(index) {
  chosen = index;
  for (const name of ['facts', 'settings', 'command']) element(name).textContent = subnets[index][name];
  element('copied').textContent = '';
  element('chosen').hidden = false;
  place();
}

function start() {
  figure.on('plotly_click', event => {
    const index = event.points[0].customdata;
    if (index === undefined) return;
    element('choose').value = '';
    choose(index);
  });
  figure.on('plotly_buttonclicked', () => setTimeout(place, 0));
  element('choose').addEventListener('change', event => {
    if (event.target.value !== '') choose(Number(event.target.value));
  });
  element('copy').addEventListener('click', () => {
    const done = () => { element('copied').textContent = 'copied'; };
    const select = () => {  // where the browser does not let a file write to the clipboard
      const range = document.createRange();
      range.selectNodeContents(element('command'));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      if (document.execCommand('copy')) done();
    };
    if (navigator.clipboard) navigator.clipboard.writeText(element('command').textContent).then(done, select);
    else select();
  });
}

start();
