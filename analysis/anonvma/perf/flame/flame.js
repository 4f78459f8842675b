// SPDX-License-Identifier: GPL-2.0-only
(() => {
for (const root of document.querySelectorAll('.anonvma-flame:not([data-ready])')) {
  root.dataset.ready = '1';
  const graph = root.querySelector('svg.g');
  const boxes = [...graph.querySelectorAll('svg.b')];
  const of = boxes.map(b => ({x: +b.dataset.x, w: +b.dataset.w, p: +b.dataset.p}));
  const index = new Map(boxes.map((b, i) => [b, i]));
  const said = root.querySelector('p'), field = root.querySelector('input');
  const shares = boxes.map(b => b.getAttribute('aria-label'));
  const names = boxes.map(b => b.querySelector('text').textContent.toLowerCase());
  let zoomed = 0;
  const visible = i => boxes[i].style.display !== 'none';
  const tell = i => { said.textContent = shares[i]; };
  const focus = i => {
    if (i === undefined) return;
    for (const b of boxes) if (b.getAttribute('tabindex') === '0') b.setAttribute('tabindex', -1);
    boxes[i].setAttribute('tabindex', 0);
    boxes[i].focus();
    tell(i);
  };
  const zoom = to => {
    zoomed = to;
    const below = new Set();
    for (let i = to; i >= 0; i = of[i].p) below.add(i);
    const {x, w} = of[to];
    of.forEach((o, i) => {
      const left = (o.x - x) / w, width = o.w / w, b = boxes[i];
      const inside = left > -1e-6 && left + width < 1 + 1e-6;
      const shown = below.has(i) || inside && within(i, to);
      b.style.display = shown ? '' : 'none';
      b.classList.toggle('o', below.has(i) && i !== to);
      b.setAttribute('x', below.has(i) ? '0%' : 100 * left + '%');
      b.setAttribute('width', below.has(i) ? '100%' : 100 * width + '%');
    });
    focus(to);
  };
  const within = (i, to) => { while (i >= 0 && i !== to) i = of[i].p; return i === to; };
  const search = () => {
    const text = field.value.toLowerCase();
    const hits = new Set();
    boxes.forEach((b, i) => {
      const hit = text !== '' && names[i].includes(text);
      b.classList.toggle('f', hit);
      if (hit) hits.add(i);
    });
    let sum = 0;
    for (const i of hits) {  // what is on top of another hit is part of it
      let p = of[i].p;
      while (p >= 0 && !hits.has(p)) p = of[p].p;
      if (p < 0) sum += of[i].w;
    }
    said.textContent = text === '' ? '' :
      `${hits.size} boxes have it: ${(100 * sum).toFixed(1)} % of the width`;
  };
  const sideways = (i, step) => {
    const y = boxes[i].getAttribute('y');
    const row = boxes.map((b, j) => j).filter(j => boxes[j].getAttribute('y') === y && visible(j));
    row.sort((a, b) => of[a].x - of[b].x);
    return row[row.indexOf(i) + step];
  };
  const widest = i => boxes.map((b, j) => j).filter(j => of[j].p === i && visible(j))
    .sort((a, b) => of[b].w - of[a].w)[0];
  const box = event => index.get(event.target.closest && event.target.closest('svg.b'));
  graph.addEventListener('click', e => { const i = box(e); if (i !== undefined) zoom(i); });
  graph.addEventListener('mouseover', e => { const i = box(e); if (i !== undefined) tell(i); });
  graph.addEventListener('focusin', e => { const i = box(e); if (i !== undefined) tell(i); });
  graph.addEventListener('keydown', e => {
    const i = box(e);
    if (i === undefined) return;
    const go = {
      ArrowUp: () => focus(widest(i)),
      ArrowDown: () => { if (of[i].p >= 0) focus(of[i].p); },
      ArrowLeft: () => focus(sideways(i, -1)),
      ArrowRight: () => focus(sideways(i, 1)),
      Enter: () => zoom(i), ' ': () => zoom(i),
      Escape: () => zoom(0), Home: () => focus(zoomed),
      '/': () => field.focus(),
    }[e.key];
    if (go && !e.ctrlKey && !e.metaKey && !e.altKey) {
      e.preventDefault(); e.stopPropagation(); go();
    }
  });
  field.addEventListener('input', search);
  field.addEventListener('keydown', e => {
    e.stopPropagation();
    if (e.key === 'Escape') { field.value = ''; search(); focus(zoomed); }
  });
  root.querySelector('button').addEventListener('click', () => zoom(0));
}
})();
