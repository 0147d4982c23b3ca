// Lets the figures of the page answer: which value is that, what at this step,
// only these runs, on other axes.
//
// A figure stands on the page still, and beside it its data, which
// `drawing/interactive.py` writes. When it comes near the screen it is drawn
// here, in the place of the still one, from these data alone: nothing is
// requested, and what is told is put on the page as text. A kind of mark has a
// function in SPANS, what its axes have to hold, and one in DRAW.

const SVG = document.querySelector('svg')?.namespaceURI;
const NARROW = 640; // pixels of a telephone, as in the style of the page
const FEWEST = 5; // seeds of an interval, see results/seeds.py
const MANY = 10; // runs above which a key of their configs colours them
const RIDGE = 1.6; // height of a histogram, see static.py
const LEVELS = 17; // shades of a surface, see static.py
const MARKED = 6; // points of a line that has markers
const GREY = '#7F7F7F';
const WHITE = '#FFFFFF';
const BLACK = '#000000';
const COLOURS = [
  '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', GREY, BLACK,
];
const DASHES = [[], [5, 1.5], [1.5, 1], [5, 1, 1, 1]];
const SHAPES = {
  o: 'M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0', s: 'M-3-3H3V3H-3Z',
  '^': 'M0-4L4 3H-4Z', D: 'M0-4L4 0L0 4L-4 0Z', v: 'M0 4L4-3H-4Z',
  P: 'M-1-4H1V-1H4V1H1V4H-1V1H-4V-1H-1Z',
  X: 'M-4-2L-2-4L0-2L2-4L4-2L2 0L4 2L2 4L0 2L-2 4L-4 2L-2 0Z',
  '*': 'M0-5L1-2H5L2 1L3 4L0 2L-3 4L-2 1L-5-2H-1Z',
  ring: 'M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0',
  cross: 'M-4-4L4 4M-4 4L4-4', plus: 'M-4 0H4M0-4V4',
};
// Fields of marks, edges and seeds that are places in the arrays of a figure.
const ARRAYS = {
  points: 'x y', reference: 'x low high', cells: 'x y values',
  fan: 'x y value', ridges: 'edges steps heights drawn', hatched: 'spans',
  contours: 'x y values way way_steps way_values',
  edge: 'x mean low high', seed: 'x y high bins y_bins high_bins',
};
const MAPS = ['cells', 'contours', 'ridges']; // without margins and grid
const WINDOWS = [0, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const UNITS = {
  step: ['Training step', () => 1],
  epochs: ['Epoch', (fact) => fact.batch / fact.examples],
  examples: ['Training examples', (fact) => fact.batch],
  seconds: ['Seconds of training', (fact) => fact.seconds],
};

const facts = JSON.parse(document.getElementById('runs').textContent);
const factOf = new Map(facts.map((fact) => [fact.name, fact]));
// What all figures show; what one shows stands in `own`.
const state = {
  filter: '', runs: new Set(), seeds: new Set(), unit: 'step', smooth: 0,
  by: '', split: '',
};
const own = new Map(); // name of a figure -> what is chosen for it alone
const views = [];
const updates = []; // of controls, when something else has changed
let looks = new Map(); // run -> its look, where a key colours runs
let cursor = null; // {name of an axis, at}
let identity = 0; // of the last clip path or pattern

// ---------------------------------------------------------------- elements

/** Gives an element its attributes, listeners and children. */
function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const html = (tag, attributes = {}, ...children) =>
  build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);
const button = (text, click, more = {}) =>
  html('button', { type: 'button', click, ...more }, text);

/** Makes many buttons one stop of the tab key: arrows go between them. */
function rove(group) {
  const every = [...group.querySelectorAll('button')];
  every.forEach((one, place) => { one.tabIndex = place ? -1 : 0; });
  group.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const place = every.indexOf(event.target);
    if (place < 0 || !step) return;
    event.preventDefault();
    every[place].tabIndex = -1;
    const next = every.at((place + step) % every.length);
    next.tabIndex = 0;
    next.focus();
  });
  return group;
}

/** Returns a choice of (value, text); `change` takes the value. */
function choice(label, options, value, change) {
  const select = html('select', { change: () => change(select.value) },
    ...options.map(([key, text]) => html('option', { value: key }, text)));
  updates.push(() => { select.value = value(); });
  return html('label', {}, `${label} `, select);
}

/** Returns a number as on an axis: 0.001, 2e-5. */
function short(number) {
  const size = Math.abs(number);
  const rounded = Number(number.toPrecision(6));
  if (!size || (size >= 1e-4 && size < 1e6)) return String(rounded);
  return rounded.toExponential().replace('+', '');
}

/** Returns a text about as wide as so many pixels, its middle left out. */
function fitted(text, pixels) {
  const half = Math.max(4, Math.floor(pixels / 13));
  if (text.length <= 2 * half) return text;
  return `${text.slice(0, half)}…${text.slice(1 - half)}`;
}

/** Returns [0, 1, ..., count - 1]. */
const numbers = (count) => [...Array(Math.max(0, Math.ceil(count))).keys()];

// ---------------------------------------------------------------- address

/** Returns what the address holds: the section, and what is shown. */
function address() {
  const [place, ...query] = location.hash.split('?');
  return [place, query.join('?')];
}

/** Returns what is shown as text, '' where nothing was chosen. */
function chosen() {
  const told = { ...state, runs: [...state.runs], seeds: [...state.seeds] };
  const alone = JSON.stringify(ALONE);
  const text = JSON.stringify({ ...told, own: [...own].filter(([, of]) =>
    JSON.stringify(of) !== alone) });
  return text === untouched ? '' : encodeURIComponent(text);
}
let untouched = '';

/** Shows what the address says; what it does not say, as it was at first. */
function readAddress() {
  const [place, query] = address();
  if (!query) return;
  try {
    const told = JSON.parse(decodeURIComponent(query));
    state.filter = String(told.filter);
    state.runs = new Set(told.runs);
    state.seeds = new Set(told.seeds);
    if (units().includes(told.unit)) state.unit = told.unit;
    if (WINDOWS.includes(told.smooth)) state.smooth = told.smooth;
    for (const key of ['by', 'split']) {
      if (['', ...keys()].includes(told[key])) state[key] = told[key];
    }
    for (const [name, of] of told.own) own.set(name, { ...ALONE, ...of });
  } catch { /* of another page, or cut: the rest is shown as at first */ }
  document.getElementById(place.slice(1))?.scrollIntoView();
}

/** Draws what has changed, and keeps it in the address. */
function changed() {
  looks = looksBy(state.by);
  const [place] = address();
  const text = chosen();
  // A strict viewer may refuse it, and shows the rest.
  try {
    history.replaceState(null, '', text ? `${place || '#'}?${text}`
      : place || location.pathname);
  } catch { /* not kept */ }
  for (const view of views) view.refresh();
  for (const update of updates) update();
}

// ---------------------------------------------------------------- runs

/** Returns whether a run, or one of its seeds, is shown. */
function isShown(run, seed) {
  if (state.runs.has(run) || state.seeds.has(seed)) return false;
  const fact = factOf.get(run);
  return !fact || state.filter.toLowerCase().split(',').some((part) =>
    part.split(' ').every((term) => meets(fact, seed, term)));
}

/** Returns whether a run meets a term: part of its name, or key=value. */
function meets(fact, seed, term) {
  const [key, ...rest] = term.split('=');
  if (!rest.length) return fact.name.toLowerCase().includes(term);
  const is = (value) => String(value).toLowerCase() === rest.join('=');
  if (key === 'seed') return (seed === undefined ? fact.seeds : [seed]).some(is);
  return Object.entries(fact.config).some(([name, value]) =>
    `.${name}`.endsWith(`.${key}`) && is(value));
}

/** Returns the keys in which the configs of the runs differ. */
const keys = () => [...new Set(facts.flatMap((of) => Object.keys(of.config)))];

/** Returns value of a key -> its runs, in the order of the values. */
function groupsOf(key) {
  const groups = new Map();
  for (const { name, config } of facts) {
    const value = String(Object.hasOwn(config, key) ? config[key] : 'none');
    groups.set(value, [...(groups.get(value) || []), name]);
  }
  return [...groups].sort(([a], [b]) => a - b || a.localeCompare(b));
}

/** Returns the key that colours many runs until another is chosen. */
function firstKey() {
  if (facts.length <= MANY) return '';
  const size = (key) => groupsOf(key).length;
  return keys().filter((key) => size(key) <= COLOURS.length)
    .sort((a, b) => size(b) - size(a))[0] || '';
}

/** Returns run -> look: a colour a value of a key, and no two runs alike. */
function looksBy(key) {
  const groups = key ? groupsOf(key) : [];
  return new Map(groups.flatMap(([, runs], group) => runs.map((run, place) => {
    const marker = Math.floor(place / DASHES.length) % 9;
    return [run, {
      colour: groups.length <= COLOURS.length ? COLOURS[group]
        : `hsl(${(360 * group) / groups.length} 70% ${40 + 15 * (group % 2)}%)`,
      dash: DASHES[place % DASHES.length],
      marker: marker ? Object.keys(SHAPES)[marker - 1] : '',
      hollow: place >= 9 * DASHES.length,
    }];
  })));
}

/** Returns what a step of a run is in the chosen unit. */
const factor = (run) =>
  factOf.has(run) ? UNITS[state.unit][1](factOf.get(run)) : 1;

/** Returns the units that are known of all runs. */
const units = () => Object.keys(UNITS).filter((unit) =>
  facts.every((fact) => UNITS[unit][1](fact) > 0));

// ---------------------------------------------------------------- numbers

/** Between which numbers an axis has to reach. */
class Extent {
  low = Infinity;
  high = -Infinity;
  positive = Infinity;

  add(line, times) {
    for (const number of line) {
      if (!Number.isFinite(number)) continue;
      this.low = Math.min(this.low, number * times);
      this.high = Math.max(this.high, number * times);
      if (number > 0) this.positive = Math.min(this.positive, number * times);
    }
  }

  /** Returns the ends of an axis, with margins, within its limits. */
  ends(axis, log, margin) {
    let [low, high] = [log ? this.positive : this.low, this.high];
    if (low > high) [low, high] = [1, 1];
    if (log && high / low < 1 + 1e-9) [low, high] = [low / 10, high * 10];
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const room = log ? (high / low) ** margin : (high - low) * margin;
    [low, high] = log ? [low / room, high * room] : [low - room, high + room];
    let [from, to] = axis.limits || [];
    from = axis.fixed ? from ?? low : Math.max(low, from ?? low);
    to = axis.fixed ? to ?? high : Math.min(high, to ?? high);
    return from < to && !(log && from <= 0) ? [from, to] : [low, high];
  }
}

/** Returns number -> pixel; `back` is its inverse. */
function scaled([low, high], from, to, log) {
  const of = log ? Math.log10 : Number;
  const slope = (to - from) / (of(high) - of(low));
  const back = (pixel) => {
    const number = of(low) + (pixel - from) / slope;
    return log ? 10 ** number : number;
  };
  return Object.assign((number) => from + (of(number) - of(low)) * slope,
    { low, high, log, back });
}

/** Returns the numbers of ticks: 1, 2, 5 times powers of ten. */
function ticks({ low, high, log }, count) {
  const is = (number) => number >= low && number <= high;
  if (log) {
    const [first, last] = [low, high].map((of) => Math.floor(Math.log10(of)));
    const digits = high > 300 * low || count < 4 ? [1] : [1, 2, 5];
    const stride = digits[1] ? 1 : Math.ceil((last - first) / count) || 1;
    const powers = numbers(last - first + 1).map((of) => of + first)
      .filter((power) => power % stride === 0).flatMap((power) =>
        digits.map((digit) => Number(`${digit}e${power}`))).filter(is);
    if (powers[1]) return powers;
  }
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = power * [1, 2, 5, 10].find((of) =>
    of * power >= ((high - low) / count) * 0.999);
  const first = Math.ceil(low / step);
  return numbers((high - low) / step + 1)
    .map((place) => Number(((first + place) * step).toPrecision(12))).filter(is);
}

/** Returns means of the last `count` numbers; null before the first. */
const trailing = (line, count) => line.map((_, place) => {
  const last = line.slice(place - count + 1, place + 1);
  return place < count - 1 || last.includes(null) ? null
    : last.reduce((sum, number) => sum + number) / count;
});

/** Returns an edge of a seed, as means over so many points. */
function smoothed(seed, end, count) {
  if (count < 2) return { x: seed.x, y: seed[end] };
  if (!seed.bins) return { x: seed.x, y: trailing(seed[end], count) };
  // Of a long line only the ends of equal parts are here, and their means.
  const wide = Math.max(1, Math.round(count / seed.size));
  return { x: seed.bins, y: trailing(seed[`${end}_bins`], wide) };
}

/** Returns the mean of lines with the same x; null of others. */
function meanOf(lines, log) {
  const { x } = lines[0];
  if (lines.some((line) => line.x !== x)) return null;
  const mean = x.map((_, place) => {
    let of = lines.map((line) => line.y[place])
      .filter((y) => y !== null && (y > 0 || !log));
    if (log) of = of.map(Math.log);
    const middle = of.reduce((sum, y) => sum + y, 0) / of.length;
    return of.length ? (log ? Math.exp(middle) : middle) : null;
  });
  return { x, mean };
}

/** Returns the place in a line that is nearest to `at`; -1 beyond its ends. */
function nearest(x, times, at) {
  const distance = (place) => Math.abs(x[place] * times - at);
  let best = 0;
  for (let place = 1; place < x.length; place += 1) {
    if (distance(place) < distance(best)) best = place;
  }
  const gap = Math.abs((x.at(-1) - x[0]) * times) / Math.max(1, x.length - 1);
  return distance(best) <= gap + 1e-9 * Math.abs(at) ? best : -1;
}

// ---------------------------------------------------------------- figures

// What is chosen for one figure: kinds of axes, look of the slider, ...
const ALONE = { x: '', y: '', frame: -1, solid: false, hidden: [], zoom: {} };

/** Returns the data of a figure, with its arrays where marks name them. */
async function loaded(block) {
  let text = block.textContent;
  if (block.type === 'application/gzip') {
    const bytes = Uint8Array.from(atob(text), (of) => of.charCodeAt(0));
    const whole = new Blob([bytes]).stream();
    text = await new Response(
      whole.pipeThrough(new DecompressionStream('gzip'))).text();
  }
  const data = JSON.parse(text);
  const place = (holder, kind) => {
    for (const name of (ARRAYS[kind] || '').split(' ')) {
      if (Number.isInteger(holder[name])) {
        holder[name] = data.arrays[holder[name]];
      }
    }
  };
  const every = [data, ...data.frames].map((frame) => frame.rows).flat(2);
  for (const mark of every.flatMap((panel) => panel?.marks || [])) {
    place(mark, mark.kind);
    if (!mark.seeds) continue;
    mark.edges.forEach((edge) => place(edge, 'edge'));
    mark.seeds.forEach((seed) => place(seed, 'seed'));
  }
  return data;
}

/** One figure: its still picture, and what is drawn in the place of it. */
class View {
  constructor(block) {
    this.block = block;
    this.name = block.dataset.figure;
    this.figure = block.parentElement.querySelector('figure');
    this.plots = [];
    this.updates = [];
    this.turn = { around: 0.7, up: 0.6 };
    new IntersectionObserver((entries) => {
      this.near = entries.at(-1).isIntersecting;
      if (this.near) this.start();
    }, { rootMargin: '500px' }).observe(this.figure);
  }

  /** What is chosen for it alone. */
  get own() {
    if (!own.has(this.name)) own.set(this.name, { ...ALONE, zoom: {} });
    return own.get(this.name);
  }

  /** Reads its data when it first comes near the screen, and draws. */
  async start() {
    if (this.begun) return this.stale && this.draw();
    this.begun = true;
    const data = await loaded(this.block);
    this.keys = new Map(data.keys.map((key) => [key.index, key]));
    const still = this.figure.querySelector('.still');
    this.ink = svg('svg', {
      role: 'application', tabindex: 0, 'font-size': 12,
      'aria-label': `${data.title}. ${still?.getAttribute('aria-label')}`,
      'aria-describedby': 'keys', 'font-family': 'system-ui, sans-serif',
    });
    this.tip = html('div', { class: 'tip', hidden: 'hidden' });
    this.stage = html('div', { class: 'stage' }, this.ink, this.tip);
    this.data = data;
    this.figure.prepend(controls(this), this.stage, legend(this), table(this));
    this.figure.classList.add('live');
    listen(this);
    return new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  /** Draws again; what is not near the screen, when it comes. */
  refresh() {
    this.stale = true;
    if (this.near && this.data) requestAnimationFrame(() => {
      if (this.stale) this.draw();
    });
  }

  draw() {
    const width = this.stage.clientWidth;
    if (!width) return;
    this.stale = false;
    this.ink.replaceChildren();
    this.stage.querySelectorAll('canvas').forEach((one) => one.remove());
    let height = arrange(this, rowsOf(this), width);
    scale(this);
    for (const plot of this.plots) {
      axes(plot);
      for (const [mark, shape] of plot.shapes) {
        DRAW[mark.kind](plot, mark, shape);
      }
      divergences(plot);
    }
    height = bars(this, height, width);
    build(this.ink, { viewBox: `0 0 ${width} ${height}`, width, height }, []);
    for (const update of this.updates) update();
    point(this);
  }

  /** Returns how the marks of a key look. */
  look(index) {
    const key = this.keys.get(index);
    return key?.run && looks.get(key.label) || key || { colour: GREY, dash: [] };
  }

  /** Returns the run of a mark: that of its key or panel; '' of several. */
  run(mark, panel) {
    const key = this.keys.get(mark.key);
    return key?.run ? key.label : panel.run;
  }

  isLog(axis, which) {
    const kind = this.own[which];
    return kind ? kind === 'log' && !axis.names.length : axis.logarithmic;
  }
}

/** Returns the panels to draw: of a look, of shown runs, apart by a key. */
function rowsOf(view) {
  const { rows } = view.data.frames[view.own.frame] || view.data;
  return rows.map((row, down) => row.flatMap((panel, across) => {
    if (!panel) return [null];
    const seed = panel.marks.find((mark) => mark.seed >= 0)?.seed;
    if (panel.run && !isShown(panel.run, seed)) return [];
    return apart(view, panel).map((part) => ({ ...part, down, across }));
  })).filter((row) => row.some(Boolean));
}

/** Returns a panel a value of the key that sets runs apart. */
function apart(view, panel) {
  const run = (mark) => view.keys.get(mark.key)?.run && view.run(mark, panel);
  if (!state.split || !panel.marks.some(run)) return [panel];
  return groupsOf(state.split).map(([value, runs]) => ({
    ...panel,
    title: `${panel.title} ${state.split.split('.').at(-1)} ${value}`,
    marks: panel.marks.filter((of) => !run(of) || runs.includes(run(of))),
  })).filter((part) => part.marks.some((of) => run(of) && isShown(run(of))));
}

/** Lays panels out in blocks, as still pictures are; returns the height. */
function arrange(view, rows, width) {
  const { shares, abreast } = view.data;
  const columns = Math.max(1, ...rows.map((row) => row.length));
  const blocks = Math.ceil(columns / Math.max(1, Math.min(
    abreast[Number(width < NARROW)], Math.floor(width / 150))));
  const wide = Math.ceil(columns / blocks);
  view.plots = rows.flatMap((row, down) => row.flatMap((panel, column) => {
    if (!panel) return [];
    const across = column % wide;
    const [above, below] = [-1, 1].map((by) => rows[down + by]?.[column]);
    const left = across && row[column - 1];
    const alike = left && left.y.label === panel.y.label;
    return [{
      view, panel, across,
      line: Math.floor(column / wide) * rows.length + down,
      title: above?.title === panel.title ? '' : panel.title,
      isTold: !(shares && below?.x.name === panel.x.name),
      isNamed: !alike, isTicked: !left || !shares,
    }];
  }));
  return place(view, wide, width);
}

/** Sets where each panel stands; returns the height of all. */
function place(view, wide, width) {
  const { plots } = view;
  const lefts = numbers(wide).map((across) => plots.some((plot) =>
    plot.across === across && plot.isTicked) ? (width < NARROW ? 52 : 64) : 12);
  const sum = (of) => of.reduce((whole, one) => whole + one, 0);
  const inner = (width - sum(lefts)) / wide;
  const lines = Math.max(0, ...plots.map((plot) => plot.line + 1));
  let height = lines > 2 ? 150 : wide > 1 ? 200 : 250;
  if (view.figure.matches('.alone, :fullscreen')) {
    height = Math.max(height, (innerHeight - 280) / lines - 50);
  }
  let top = 0;
  for (const line of numbers(lines)) {
    const of = plots.filter((plot) => plot.line === line);
    top += Math.max(...of.map(({ panel, title }) =>
      (title ? 24 : 8) + (panel.note ? 15 : 0)));
    for (const plot of of) {
      Object.assign(plot, {
        left: sum(lefts.slice(0, plot.across + 1)) + plot.across * inner,
        top, height, width: Math.max(20, inner - 14),
      });
    }
    top += height + Math.max(...of.map(({ isTold, panel }) =>
      isTold ? 40 + namesBelow(panel.x) : 10));
  }
  return top;
}

/** Returns the height of names below an axis, which are turned. */
const namesBelow = ({ names }) => names.length && names.length < 17
  ? Math.min(90, 6 * Math.max(...names.map((name) => name.length))) : 0;

// ---------------------------------------------------------------- axes

/** Returns [mark, what is shown of it] of a panel. */
function shapesOf({ view, panel }) {
  const log = view.isLog(panel.y, 'y');
  return panel.marks.map((mark) => {
    const run = view.run(mark, panel);
    const isGone = view.own.hidden.includes(mark.key);
    if (isGone || (run && !isShown(run))) return [mark, null];
    return [mark, mark.seeds ? lineOf(mark, panel, run, log) : {}];
  }).filter(([, shape]) => shape);
}

/** Returns the mean and the seeds of lines; null where none is shown. */
function lineOf(mark, panel, run, log) {
  const seeds = mark.seeds.filter((seed) => isShown(run, seed.seed));
  if (!seeds.length) return null;
  const count = state.smooth || mark.window || 1;
  const ends = mark.edges.length > 1 ? ['y', 'high'] : ['y'];
  const isWhole = seeds.length === mark.seeds.length && !state.smooth;
  let { edges } = mark; // over all seeds, on the axis as it was at first
  if (!mark.paired && !(isWhole && log === panel.y.logarithmic)) {
    const means = ends.map((end) =>
      meanOf(seeds.map((seed) => smoothed(seed, end, count)), log));
    if (means.every(Boolean)) edges = means;
    else if (!isWhole) edges = [];
  }
  const isLine = mark.style === 'line' && mark.key !== null && !seeds[0].high;
  const few = seeds.length > 1 && seeds.length < FEWEST && isLine;
  return {
    seeds, edges, count,
    times: panel.x.name === 'step' ? factor(run) : 1,
    points: count > 1 && isLine ? seeds : [],
    thin: few || !edges.length ? seeds.map((seed) => ({
      ...smoothed(seed, 'y', count), high: seed.high })) : [],
  };
}

// Lines that the axes of a panel have to hold of each kind of mark.
const SPANS = {
  lines(mark, { edges, points, thin }) {
    const all = [...edges, ...points, ...thin];
    return [all.map((of) => of.x), all.flatMap((of) =>
      [of.mean || of.y, of.high && !of.low ? of.high : []])];
  },
  rule: (mark) => [[], [[mark.at]]],
  points: (mark) => [[mark.x], [mark.y || []]],
  reference: (mark) => [[mark.x], [mark.low, mark.high]],
  cells: (mark) => [[mark.x], [mark.y]],
  fan: (mark) => [mark.x, mark.y],
  ridges: (mark, shape, view) => [[mark.edges],
    [[0, RIDGE + (view.own.frame < 0 ? mark.drawn.length - 1 : 0)]]],
  hatched: (mark) => [mark.spans, []],
  words: () => [[], []],
};
SPANS.bars = SPANS.lines;
SPANS.contours = SPANS.cells;

/** Gives all panels their scales; those that share an axis have one. */
function scale(view) {
  const { shares } = view.data;
  const extents = new Map();
  for (const plot of view.plots) {
    const { panel } = plot;
    const cell = `${panel.down} ${panel.across}`;
    const isOne = shares || panel.x.name === 'step';
    plot.names = {
      x: `x ${isOne ? panel.x.name : cell}`,
      y: `y ${shares ? panel.down : cell}`,
    };
    plot.shapes = shapesOf(plot);
    for (const which of ['x', 'y']) {
      const name = plot.names[which];
      if (!extents.has(name)) extents.set(name, new Extent());
      for (const [mark, shape] of plot.shapes) {
        const times = which === 'x' && shape.times || 1;
        for (const line of SPANS[mark.kind](mark, shape, view)[
          Number(which === 'y')]) extents.get(name).add(line, times);
      }
    }
  }
  for (const plot of view.plots) {
    plot.isMap = plot.panel.marks.some((mark) => MAPS.includes(mark.kind));
    for (const which of ['x', 'y']) {
      const axis = plot.panel[which];
      const extent = extents.get(plot.names[which]);
      const log = view.isLog(axis, which) && extent.positive < Infinity;
      const zoom = view.own.zoom[plot.names[which]];
      const isGood = zoom?.every(Number.isFinite) && !(log && zoom[0] <= 0);
      const ends = isGood ? zoom : extent.ends(axis, log, plot.isMap ? 0 : 0.05);
      plot[which] = scaled(ends, ...(which === 'x' ? [0, plot.width]
        : [plot.height, 0]), log);
    }
  }
}

/** Writes a text beside a panel. */
function write(plot, text, transform, more = {}) {
  if (text) {
    plot.words.append(svg('text', {
      transform, 'text-anchor': 'middle', ...more }, text));
  }
}

/** Draws the axes of a panel, with its grid, labels and title. */
function axes(plot) {
  const { panel, view, width, height, title } = plot;
  const id = `clip-${identity += 1}`;
  plot.grid = svg('g', { stroke: 'currentColor', 'stroke-opacity': 0.16 });
  plot.marks = svg('g', { 'clip-path': `url(#${id})` });
  plot.words = svg('g', { fill: 'currentColor' });
  plot.over = svg('g');
  view.ink.append(svg('g', {
    transform: `translate(${plot.left} ${plot.top})` },
  svg('clipPath', { id }, svg('rect', { width, height })),
  plot.grid, plot.marks, svg('path', {
    d: `M0 0V${height}H${width}`, fill: 'none', stroke: 'currentColor' }),
  plot.words, plot.over));
  axisTicks(plot, 'x');
  axisTicks(plot, 'y');
  const middle = (top) => `translate(${width / 2} ${top})`;
  if (plot.isTold) {
    const label = panel.x.name === 'step' ? UNITS[state.unit][0]
      : panel.x.label;
    write(plot, fitted(label, width + 20),
      middle(height + 34 + namesBelow(panel.x)));
  }
  if (plot.isNamed) {
    write(plot, fitted(panel.y.label.replaceAll('\n', ' '), height + 10),
      `translate(-44 ${height / 2}) rotate(-90)`);
  }
  write(plot, fitted(title, width + 20), middle(panel.note ? -23 : -8));
  write(plot, fitted(panel.note, width + 20), middle(-8));
}

/** Draws the grid and the ticks of an axis, with numbers or names. */
function axisTicks(plot, which) {
  const { panel, width, height, isMap } = plot;
  const axis = panel[which];
  const scale = plot[which];
  const isX = which === 'x';
  const ridge = !isX && panel.marks.find((mark) => mark.kind === 'ridges');
  let at = ticks(scale, isX ? Math.ceil(width / 60) + 1 : height > 170 ? 6 : 4);
  let text = (of) => axis.percent ? `${short(of * 100)} %` : short(of);
  if (ridge || axis.names.length) {
    const names = ridge ? ridge.drawn.map((look) => ridge.steps[look])
      : axis.names;
    const first = ridge ? 0 : 1;
    const stride = Math.ceil(names.length / (ridge ? 5 : isX ? 16 : 30));
    at = plot.view.own.frame >= 0 && ridge ? []
      : numbers(names.length / stride).map((of) => of * stride + first);
    text = (of) => fitted(String(names[of - first]), 100);
  }
  for (const number of at) {
    const pixel = scale(number);
    if (!(number >= scale.low && number <= scale.high)) continue;
    if (!isMap) {
      plot.grid.append(svg('path', {
        d: isX ? `M${pixel} 0V${height}` : `M0 ${pixel}H${width}` }));
    }
    if (isX && plot.isTold && namesBelow(axis)) {
      write(plot, text(number),
        `translate(${pixel + 4} ${height + 6}) rotate(-90)`,
        { 'text-anchor': 'end' });
    } else if (isX && plot.isTold) {
      write(plot, text(number), `translate(${pixel} ${height + 16})`);
    } else if (!isX && plot.isTicked) {
      write(plot, text(number), `translate(-5 ${pixel + 4})`,
        { 'text-anchor': 'end' });
    }
  }
}

// ---------------------------------------------------------------- marks

const onAxis = (axis, number) =>
  Number.isFinite(number) && (!axis.log || number > 0);

/** Returns [left, top, ...] of the points of lines, broken where one lacks. */
function pieces(plot, x, lines, times = 1) {
  const all = [[]];
  x.forEach((at, place) => {
    const ends = lines.map((line) => line[place]);
    if (onAxis(plot.x, at) && ends.every((y) => onAxis(plot.y, y))) {
      all.at(-1).push([plot.x(at * times), ...ends.map((y) => plot.y(y))]
        .map((pixel) => Number(pixel.toFixed(1))));
    } else if (all.at(-1).length) all.push([]);
  });
  return all.filter((piece) => piece.length);
}

/** Adds to the marks of a panel. */
function add(plot, tag, attributes, ...children) {
  plot.marks.append(svg(tag, attributes, ...children));
}

function line(plot, x, y, attributes, times) {
  const d = pieces(plot, x, [y], times).map((piece) => `M${piece.join('L')}`);
  if (d.length) add(plot, 'path', { d: d.join(''), fill: 'none', ...attributes });
}

/** Fills between two lines; a point that stands alone gets a bar. */
function area(plot, x, low, high, attributes, times) {
  const d = pieces(plot, x, [low, high], times).map((piece) => {
    const [[left, ...ends]] = piece;
    const of = piece[1] ? piece
      : [[left - 2, ...ends], [left + 2, ...ends]];
    const back = of.map(([at,, top]) => [at, top]).reverse();
    return `M${[...of.map(([at, top]) => [at, top]), ...back].join('L')}Z`;
  });
  if (d.length) add(plot, 'path', { d: d.join(''), ...attributes });
}

/** Puts a marker on each of some points. */
function markers(plot, marker, points, look) {
  const isOpen = ['ring', 'cross', 'plus'].includes(marker);
  for (const [x, y] of points) {
    add(plot, 'path', {
      d: SHAPES[marker] || SHAPES.o, stroke: tone(look),
      fill: isOpen ? 'none' : look.hollow ? WHITE : tone(look),
      'stroke-width': isOpen || look.hollow ? 1.4 : 0,
      transform: `translate(${x} ${y})`,
    });
  }
}

// Black would not be seen in the dark.
const tone = ({ colour }) => colour === BLACK ? 'currentColor' : colour;

const stroke = (look, width, opacity = 1, dash = []) => ({
  stroke: tone(look), 'stroke-width': width, 'stroke-opacity': opacity,
  'stroke-dasharray': dash.map((of) => of * width).join(' '),
});

const filled = (look, opacity) => ({
  fill: tone(look), 'fill-opacity': opacity });

const DRAW = {
  lines(plot, mark, shape) {
    const look = plot.view.look(mark.key);
    const { edges, seeds, points, thin, times } = shape;
    if (seeds[0].high) { bandOf(plot, shape, look); return; }
    const [edge] = edges;
    const hasMean = edge?.mean.some((mean) => mean !== null);
    for (const { x, y } of points) {
      const opacity = hasMean ? 0.25 / seeds.length : 0.6;
      line(plot, x, y, stroke(look, 0.6, opacity), times);
    }
    for (const { x, y } of thin) {
      const style = seeds.length > 1 ? stroke(look, 0.7, 0.45)
        : stroke(look, 1.6, 1, look.dash);
      line(plot, x, y, style, times);
    }
    if (!edge) return;
    const style = mark.key === null ? stroke(look, 0.8) : {
      thin: stroke(look, 1, 1, [1, 2]), further: stroke(look, 0.7, 0.8),
    }[mark.style] || stroke(look, 1.6, 1, look.dash);
    line(plot, edge.x, edge.mean, style, times);
    if (mark.style !== 'line' || mark.key === null) return;
    const all = pieces(plot, edge.x, [edge.mean], times);
    const every = all.flat();
    const stride = Math.floor(every.length / MARKED) || 1;
    markers(plot, look.marker, [
      ...all.filter((piece) => !piece[1]).flat(),
      ...every.filter((_, place) => look.marker && place % stride === 0),
    ], look);
    interval(plot, edge, look, times);
  },
  bars(plot, mark, { edges: [low, high], times }) {
    const look = plot.view.look(mark.key);
    for (const [left, from, to] of high
      ? pieces(plot, low.x, [low.mean, high.mean], times).flat() : []) {
      add(plot, 'path', {
        d: `M${left - 3} ${from}h6m-3 0V${to}m-3 0h6`, fill: 'none',
        ...stroke(look, 0.9) });
    }
  },
  rule(plot, mark) {
    const look = plot.view.look(mark.key);
    const dash = mark.key === null ? [4, 3] : [1, 2];
    if (onAxis(plot.y, mark.at)) {
      add(plot, 'path', {
        d: `M0 ${plot.y(mark.at)}H${plot.width}`, ...stroke(look, 1, 1, dash) });
    }
  },
  points(plot, mark) {
    const isHollow = mark.shape === 'hollow';
    const places = mark.x.map((x, place) => [
      plot.x(x), mark.y ? plot.y(mark.y[place])
        : (1 - mark.place) * plot.height]);
    markers(plot, mark.shape, places.filter((of) => of.every(Number.isFinite)),
      { ...plot.view.look(mark.key), hollow: isHollow });
  },
  reference(plot, mark) {
    const look = plot.view.look(mark.key);
    const style = stroke(look, 0.9, 0.7, [2.5, 1.2]);
    line(plot, mark.x, mark.low, style);
    if (mark.low === mark.high) return;
    line(plot, mark.x, mark.high, style);
    area(plot, mark.x, mark.low, mark.high, filled(look, 0.15));
  },
  cells(plot, mark) {
    const within = (edges, axis) => (pixel) => {
      const number = axis.back(pixel);
      return edges.findIndex((edge, place) =>
        edge <= number && number < edges[place + 1]);
    };
    raster(plot, mark.scale, within(mark.x, plot.x), within(mark.y, plot.y),
      (column, row) => mark.values[row]?.[column]);
    if (!mark.written || plot.width / mark.x.length < 28) return;
    const middle = (edges, at) => (edges[at] + edges[at + 1]) / 2;
    mark.values.forEach((row, down) => row.forEach((number, across) => {
      if (number === null) return;
      add(plot, 'text', {
        x: plot.x(middle(mark.x, across)), y: plot.y(middle(mark.y, down)),
        dy: 4, 'font-size': 10.5, 'text-anchor': 'middle',
        fill: share(mark.scale, number) > 0.6 ? BLACK : WHITE,
      }, number.toFixed(2));
    }));
  },
  fan(plot, mark) {
    mark.value.forEach((value, place) => line(plot, mark.x[place],
      mark.y[place], { stroke: shade(mark.scale, value), 'stroke-width': 0.9 }));
  },
  ridges(plot, mark) {
    const look = plot.view.look(mark.key);
    const { frame } = plot.view.own;
    const { edges, heights, drawn } = mark;
    const middles = edges.slice(1).map((of, at) => (of + edges[at]) / 2);
    const top = (at, row) => heights[at].map((of) =>
      row + (RIDGE * of) / Math.max(...heights[at], 1e-12));
    const shown = frame < 0 ? drawn : [Math.min(frame, heights.length - 1)];
    for (const row of numbers(shown.length).reverse()) {
      area(plot, middles, middles.map(() => row), top(shown[row], row), {
        ...filled(look, 0.35), stroke: tone(look), 'stroke-width': 0.6 });
    }
    // A single one has the first behind it, to be compared with.
    if (frame > 0) line(plot, middles, top(0, 0), stroke({ colour: GREY }, 1));
  },
  contours(plot, mark) {
    if (mark.values.flat().includes(null)) hatch(plot, 0, plot.width);
    (plot.view.own.solid ? solid : surface)(plot, mark);
  },
  hatched(plot, mark) {
    for (const [from, to] of mark.spans) hatch(plot, plot.x(from), plot.x(to));
  },
  words(plot, mark) {
    const left = Math.min(mark.x * plot.width, plot.width - 4);
    write(plot, mark.text, `translate(${left} ${(1 - mark.y) * plot.height})`, {
      'font-size': 10.5, 'text-anchor': mark.x > 0.9 ? 'end' : 'start' });
  },
};

/** Draws a band: between the means of its edges, or of each seed. */
function bandOf(plot, { edges, thin, times }, look) {
  const style = (count) => ({
    ...filled(look, 0.5 / count), stroke: tone(look), 'stroke-width': 0.4 });
  const [low, high] = edges;
  if (high) area(plot, low.x, low.mean, high.mean, style(1), times);
  for (const edge of edges) interval(plot, edge, look, times);
  for (const { x, y, high: top } of high ? [] : thin) {
    area(plot, x, y, top, style(thin.length), times);
  }
}

/** Shades the interval of a mean, if it has one. */
function interval(plot, { x, low, high }, look, times) {
  if (low) area(plot, x, low, high, filled(look, 0.2), times);
}

/** Marks where seeds of shown runs diverged. */
function divergences(plot) {
  const { panel, view, height } = plot;
  const present = new Set(plot.shapes.map(([mark]) => mark.key));
  let last = -Infinity;
  for (const { run, label, index, diverged } of view.data.keys) {
    const isHere = panel.run ? label === panel.run : present.has(index);
    if (!run || panel.x.name !== 'step' || !isHere) continue;
    for (const step of isShown(label) ? diverged : []) {
      const left = plot.x(step * factor(label));
      add(plot, 'path', {
        d: `M${left} 0V${height}`, ...stroke(view.look(index), 1.4, 1, [1, 1.6]) });
      if (Math.abs(left - last) < 13 || left > plot.width) continue;
      last = left;
      const beside = left + (left > 0.1 * plot.width ? -4 : 12);
      write(plot, `diverged at ${step}`,
        `translate(${beside} ${height / 2}) rotate(-90)`, { 'font-size': 10.5 });
    }
  }
}

// ---------------------------------------------------------------- maps

/** Returns where a number lies between the ends of a scale, from 0 to 1. */
function share({ low, high, logarithmic }, number) {
  const of = logarithmic ? Math.log : Number;
  const part = (of(number) - of(low)) / (of(high) - of(low));
  return Math.min(1, Math.max(0, Number.isNaN(part) ? 0.5 : part));
}

const shade = (scale, number) =>
  scale.shades[Math.round(share(scale, number) * (scale.shades.length - 1))];

/** Fills a panel with the colours of numbers; null stays clear. */
function raster(plot, scale, column, row, numberAt, levels) {
  const [width, height] = [plot.width, plot.height].map(Math.ceil);
  const canvas = html('canvas', { width, height });
  const ink = canvas.getContext('2d');
  const columns = numbers(width).map((left) => column(left + 0.5));
  let above = [];
  for (const top of numbers(height)) {
    const down = row(top + 0.5);
    const bands = columns.map((across) => {
      const number = numberAt(across, down) ?? null;
      if (number === null) return null;
      return levels ? Math.min(levels - 1,
        Math.floor(share(scale, number) * levels)) : number;
    });
    let from = 0;
    bands.forEach((band, left) => {
      const isLast = bands[left + 1] !== band;
      if (isLast && band !== null) {
        ink.fillStyle = shade(scale, levels ? level(scale, band + 0.5) : band);
        ink.fillRect(from, top, left + 1 - from, 1);
      }
      if (isLast) from = left + 1;
    });
    ink.fillStyle = 'rgba(0, 0, 0, 0.4)';
    bands.forEach((band, left) => {
      const isEdge = levels && [bands[left - 1], above[left]].some((next) =>
        (next ?? band) !== band);
      if (isEdge) ink.fillRect(left, top, 1, 1);
    });
    above = bands;
  }
  add(plot, 'image', { href: canvas.toDataURL(), width, height });
}

/** Hatches between two pixels of a panel. */
function hatch(plot, from, to) {
  const id = `hatch-${identity += 1}`;
  add(plot, 'pattern', {
    id, width: 7, height: 7, patternUnits: 'userSpaceOnUse' },
  svg('path', { d: 'M-1 8L8-1M-1 1L1-1M6 8L8 6', stroke: '#999999' }));
  add(plot, 'rect', {
    x: Math.min(from, to), width: Math.abs(to - from), height: plot.height,
    fill: `url(#${id})` });
}

/** Returns the number of a level, from 0 to LEVELS. */
function level({ low, high, logarithmic }, place) {
  const part = place / LEVELS;
  return logarithmic ? low * (high / low) ** part : low + (high - low) * part;
}

/** Draws a surface in shades between lines of equal height, and the way. */
function surface(plot, mark) {
  const along = (line, axis) => (pixel) =>
    ((axis.back(pixel) - line[0]) / (line.at(-1) - line[0])) * (line.length - 1);
  raster(plot, mark.scale, along(mark.x, plot.x), along(mark.y, plot.y),
    (x, y) => between(mark.values, x, y), LEVELS);
  const white = { colour: WHITE };
  if (!mark.way) {
    markers(plot, 'plus', [[plot.x(0), plot.y(0)]], white);
    return;
  }
  const points = mark.way.map(([x, y]) => [plot.x(x), plot.y(y)]);
  add(plot, 'path', {
    d: `M${points.join('L')}`, fill: 'none', stroke: WHITE });
  points.forEach(([cx, cy], place) => add(plot, 'circle', {
    cx, cy, r: 3, stroke: WHITE,
    fill: shade(mark.scale, mark.way_values[place] ?? Infinity) }));
  markers(plot, 'ring', points.slice(-1), white);
}

/** Returns a number of a grid, between four of its points; null beside null. */
function between(values, x, y) {
  const [i, j] = [Math.floor(x), Math.floor(y)];
  const [a, b] = [x - i, y - j];
  let sum = 0;
  for (const [di, dj] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
    const part = (di ? a : 1 - a) * (dj ? b : 1 - b);
    const number = part ? values[i + di]?.[j + dj] ?? null : 0;
    if (number === null) return null;
    sum += part * number;
  }
  return sum;
}

/** Draws below the panels what colours mean; returns the height of all. */
function bars(view, top, width) {
  const scales = new Map(view.plots.flatMap((plot) => plot.shapes).flatMap(
    ([{ scale }]) => scale ? [[JSON.stringify(scale), scale]] : []));
  for (const scale of scales.values()) {
    const { low, high, shades } = scale;
    const long = Math.min(320, width - 60);
    const plot = { words: svg('g', { fill: 'currentColor' }) };
    const axis = scaled([low, high], 0, long, scale.logarithmic);
    shades.forEach((fill, place) => plot.words.append(svg('rect', {
      x: (place * long) / shades.length, height: 10, fill,
      width: long / shades.length + 0.5 })));
    for (const number of low < high ? ticks(axis, 4) : []) {
      write(plot, short(number), `translate(${axis(number)} 23)`);
    }
    write(plot, fitted(scale.label, width), `translate(${long / 2} 39)`);
    view.ink.append(build(plot.words, {
      transform: `translate(${(width - long) / 2} ${top + 8})` }, []));
    top += 54;
  }
  return Math.max(top, 10);
}

// ---------------------------------------------------------------- surfaces

/** Puts on a panel a canvas, with its surface as a field of heights. */
function solid(plot, mark) {
  const { view, width, height, left, top } = plot;
  const sharp = Math.max(1, devicePixelRatio);
  const canvas = html('canvas', {
    width: width * sharp, height: height * sharp, role: 'img',
    tabindex: view.stage.querySelector('canvas') ? -1 : 0,
    'aria-label': `${plot.panel.title} ${mark.quantity}, heights: arrows turn`,
    style: `left:${left}px;top:${top}px;width:${width}px;height:${height}px`,
    pointerdown: (event) => canvas.setPointerCapture(event.pointerId),
    pointermove({ buttons, movementX, movementY }) {
      if (buttons) turn(view, movementX / 120, movementY / 120);
    },
    keydown(event) {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
        ArrowDown: [0, 1] }[event.key];
      if (!by) return;
      event.preventDefault();
      turn(view, by[0] / 10, by[1] / 10);
    },
  });
  view.stage.append(canvas);
  canvas.redraw = () => heights(canvas, plot, mark);
  canvas.redraw();
}

/** Turns all surfaces of a figure. */
function turn(view, around, up) {
  view.turn.around += around;
  view.turn.up = Math.min(1.5, Math.max(0.1, view.turn.up + up));
  view.stage.querySelectorAll('canvas').forEach((one) => one.redraw());
}

/** Returns (x, y, height), from 0 to 1 each, -> [left, top, nearness]. */
function projection({ around, up }, width, height) {
  const size = Math.min(width, height * 1.3) * 0.62;
  const [cos, sin] = [Math.cos(around), Math.sin(around)];
  return (x, y, z) => {
    const near = (x - 0.5) * sin - (y - 0.5) * cos;
    return [
      width / 2 + ((x - 0.5) * cos + (y - 0.5) * sin) * size,
      height / 2 + (near * Math.sin(up) - (z - 0.5) * Math.cos(up) * 0.7) * size,
      near,
    ];
  };
}

/** Draws a field of heights, the far cells first, and the way on it. */
function heights(canvas, { view, width, height, panel }, mark) {
  const ink = canvas.getContext('2d');
  ink.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
  ink.clearRect(0, 0, width, height);
  const at = projection(view.turn, width, height);
  const outline = (points) => {
    ink.beginPath();
    for (const [left, top] of points) ink.lineTo(left, top);
  };
  const colour = getComputedStyle(view.stage).color;
  Object.assign(ink, { strokeStyle: colour, fillStyle: colour, lineWidth: 0.5,
    textAlign: 'center', font: '11px system-ui, sans-serif' });
  outline([at(0, 0, 0), at(1, 0, 0), at(1, 1, 0), at(0, 1, 0), at(0, 0, 0)]);
  ink.stroke();
  ink.fillText(fitted(panel.x.label, 150), ...at(0.5, -0.1, 0).slice(0, 2));
  ink.fillText(fitted(panel.y.label, 150), ...at(-0.1, 0.5, 0).slice(0, 2));
  for (const { points, number } of cellsOf(mark, at)) {
    outline(points);
    ink.fillStyle = shade(mark.scale, number);
    ink.fill();
    ink.strokeStyle = 'rgba(0, 0, 0, 0.3)';
    ink.stroke();
  }
  const part = (line, of) => (of - line[0]) / (line.at(-1) - line[0]);
  outline((mark.way || []).map(([x, y], place) => at(part(mark.x, x),
    part(mark.y, y), share(mark.scale, mark.way_values[place] ?? Infinity))));
  Object.assign(ink, { strokeStyle: WHITE, lineWidth: 2.5 });
  ink.stroke();
}

/** Returns the cells of a surface, projected, the far ones first. */
function cellsOf({ x, y, values, scale }, at) {
  const cells = [];
  for (const i of numbers(x.length - 1)) {
    for (const j of numbers(y.length - 1)) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const of = corners.map(([a, b]) => values[a][b]);
      if (of.includes(null)) continue;
      const points = corners.map(([a, b]) => at(
        a / (x.length - 1), b / (y.length - 1), share(scale, values[a][b])));
      cells.push({ points, number: (of[0] + of[2]) / 2,
        near: points[0][2] + points[2][2] });
    }
  }
  return cells.sort((a, b) => a.near - b.near);
}

// ---------------------------------------------------------------- cursor

/** Returns what is shown at a place of an axis: [label, look, text] a line. */
function readings({ view, panel, shapes }, at) {
  return shapes.flatMap(([mark, { edges, seeds, count, times }]) => {
    if (!seeds) return [];
    const key = view.keys.get(mark.key);
    const name = [key ? key.label : mark.quantity,
      panel.marks.filter((of) => of.key === mark.key && of.seeds)[1]
        ? mark.quantity : ''].filter(Boolean).join(', ');
    const told = (label, x, ...lines) => {
      const place = nearest(x, times, at);
      const is = place >= 0 && lines[0];
      return [{
        label, look: view.look(mark.key), x: is && x[place] * times,
        y: is && lines.map((line) => line[place]),
        text: is ? lines.map((line) => line[place] ?? 'not finite').join(' to ')
          : '–',
      }];
    };
    const mean = seeds.length < 2 && count < 2 || !edges.length ? []
      : told(count > 1 ? `${name}, mean of ${count}` : `${name}, mean`,
        edges[0].x, ...edges.map((edge) => edge.mean));
    if (seeds.length >= FEWEST && mean.length) return mean;
    return [...mean, ...seeds.flatMap((of) => told(
      factOf.get(view.run(mark, panel))?.seeds[1] !== undefined
        ? `${name}, seed ${of.seed}` : name,
      of.x, ...[of.y, of.high].filter(Boolean)))];
  });
}

/** Sets the cursor of all figures with this axis; null takes it away. */
function setCursor(to) {
  cursor = to;
  for (const view of views) if (view.data && view.near) point(view);
}

/** Draws the cursor of a figure, and tells the values there. */
function point(view) {
  for (const plot of view.plots) {
    plot.over.replaceChildren();
    if (plot === view.active && view.ink.matches(':focus-visible')) {
      plot.over.append(svg('rect', {
        x: -3, y: -3, width: plot.width + 6, height: plot.height + 6,
        fill: 'none', stroke: 'currentColor', 'stroke-dasharray': '2 2' }));
    }
    if (cursor?.name !== plot.panel.x.name) continue;
    const left = plot.x(cursor.at);
    if (!(left >= 0 && left <= plot.width)) continue;
    plot.over.append(svg('path', {
      d: `M${left} 0V${plot.height}`, stroke: 'currentColor' }));
    for (const { x, y, look } of readings(plot, cursor.at)) {
      for (const number of y || []) {
        if (!onAxis(plot.y, number)) continue;
        plot.over.append(svg('circle', {
          cx: plot.x(x), cy: plot.y(number), r: 3, fill: tone(look) }));
      }
    }
  }
  if (view.values.open) fillTable(view);
}

/** Tells the values of a panel in a box beside the pointer. */
function tell(view, plot, top) {
  view.tip.hidden = !plot || !cursor;
  if (view.tip.hidden) return;
  const lines = readings(plot, cursor.at);
  if (plot.isMap) {
    for (const [{ kind, x, y, values, quantity }] of plot.shapes) {
      const [across, down] = [[x, cursor.at], [y, plot.y.back(top)]].map(
        ([line, of]) => kind === 'cells' ? line.findLastIndex((a) => a <= of)
          : line && nearest(line, 1, of));
      const number = kind === 'cells' ? values[down]?.[across]
        : values?.[across]?.[down];
      if (number > -Infinity) {
        lines.push({ label: quantity, look: {}, text: short(number) });
      }
    }
  }
  const label = plot.panel.x.name === 'step' ? UNITS[state.unit][0]
    : plot.panel.x.label;
  const head = `${label} ${short(cursor.at)}`;
  view.tip.replaceChildren(html('b', {}, head), ...lines.map((of) =>
    html('div', {}, html('i', { style: `background:${tone(of.look)}` }),
      `${of.label}: `, html('span', {}, of.text))));
  const right = plot.left + plot.x(cursor.at);
  const isRight = right > view.stage.clientWidth / 2;
  view.tip.style.cssText = `top:${plot.top + 8}px;${isRight
    ? `right:${view.stage.clientWidth - right + 10}px` : `left:${right + 10}px`}`;
  if (view.ink.matches(':focus-visible')) {
    document.getElementById('said').textContent =
      `${plot.panel.title} ${view.tip.innerText}`;
  }
}

/** Moves the cursor to the point of a panel that is nearest to a number. */
function snap(plot, at) {
  let best = at;
  let least = Infinity;
  for (const [, { seeds, edges, times }] of plot.shapes) {
    for (const { x } of seeds ? [...seeds, ...edges] : []) {
      const place = nearest(x, times, at);
      const distance = Math.abs(x[place] * times - at);
      if (distance < least) [best, least] = [x[place] * times, distance];
    }
  }
  setCursor({ name: plot.panel.x.name, at: best });
}

/** Returns the table of the values at the cursor, which fills when open. */
function table(view) {
  view.values = html('details', { toggle: () => point(view) },
    html('summary', {}, 'Values at the cursor'),
    html('div', { class: 'scroll', tabindex: 0, role: 'region',
      'aria-label': 'Values at the cursor' }));
  return view.values;
}

function fillTable(view) {
  const rows = view.plots.flatMap((plot) =>
    cursor?.name !== plot.panel.x.name ? []
      : readings(plot, cursor.at).map(({ label, x, text }) => html('tr', {},
        ...[plot.panel.about || plot.panel.title, plot.panel.y.label, label,
          x === false ? '' : short(x), text]
          .map((cell) => html('td', {}, cell)))));
  const head = ['Panel', 'Quantity', 'Run', 'At', 'Value'];
  view.values.lastChild.replaceChildren(html('table', {}, html('thead', {},
    html('tr', {}, ...head.map((cell) => html('th', { scope: 'col' }, cell)))),
  html('tbody', {}, ...rows)));
}

/** Listens to pointer and keys on the panels of a figure. */
function listen(view) {
  const { ink } = view;
  let drag = null;
  const at = (event) => {
    const box = ink.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const under = ([left, top]) => view.plots.find((plot) =>
    left >= plot.left && left <= plot.left + plot.width
    && top >= plot.top && top <= plot.top + plot.height);
  build(ink, {
    pointermove(event) {
      const [left, top] = at(event);
      if (drag) { drag.show(left, top); return; }
      const plot = under([left, top]);
      if (plot) {
        view.active = plot;
        snap(plot, plot.x.back(left - plot.left));
      }
      tell(view, plot, top - (plot?.top || 0));
    },
    pointerleave: () => tell(view, null),
    pointerdown(event) {
      const plot = under(at(event));
      if (!plot || event.pointerType === 'touch' || event.button) return;
      drag = dragged(view, plot, at(event));
      ink.setPointerCapture(event.pointerId);
    },
    pointerup(event) {
      drag?.end(...at(event));
      drag = null;
    },
    mousedown(event) {
      if (!under(at(event))) return;
      event.preventDefault(); // selects no text
      ink.focus({ preventScroll: true });
    },
    dblclick: () => unzoom(view),
    keydown: (event) => pressed(view, event),
    focus() { view.active ??= view.plots[0]; point(view); },
    blur() { point(view); tell(view, null); },
  }, []);
}

/** Zooms into what is dragged over. */
function dragged(view, plot, [left, top]) {
  const frame = svg('rect', { fill: 'currentColor', 'fill-opacity': 0.15 });
  plot.over.append(frame);
  const ends = (to, from, start, size) => [from, to].map((of) =>
    Math.min(size, Math.max(0, of - start))).sort((a, b) => a - b);
  const box = (x, y) => [ends(x, left, plot.left, plot.width),
    ends(y, top, plot.top, plot.height)];
  return {
    show(x, y) {
      const [across, down] = box(x, y);
      build(frame, { x: across[0], width: across[1] - across[0], y: down[0],
        height: down[1] - down[0] }, []);
    },
    end(x, y) {
      const [across, down] = box(x, y);
      frame.remove();
      if (across[1] - across[0] > 6) {
        view.own.zoom[plot.names.x] = across.map(plot.x.back);
      }
      if (down[1] - down[0] > 12) {
        view.own.zoom[plot.names.y] = down.map(plot.y.back).reverse();
      }
      changed();
    },
  };
}

function unzoom(view) {
  view.own.zoom = {};
  changed();
}

/** Answers a key: arrows move cursor and panel, + and - zoom, Shift pans. */
function pressed(view, event) {
  const plot = view.plots.includes(view.active) ? view.active : view.plots[0];
  const { key, shiftKey } = event;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
  const which = ['ArrowUp', 'ArrowDown'].includes(key) ? 'y' : 'x';
  if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === '+' || key === '-') {
    zoomBy(view, plot, 'x', key === '+' ? [0.2, 0.8] : [-1 / 3, 4 / 3]);
  } else if (key === 'Escape') {
    view.figure.classList.remove('alone');
    setCursor(null);
    unzoom(view);
  } else if (step && shiftKey) {
    const by = (which === 'y' ? -step : step) / 5;
    zoomBy(view, plot, which, [by, 1 + by]);
  } else if (step && which === 'y') {
    const { plots } = view;
    const place = plots.indexOf(plot) + step;
    view.active = plots.at(place % plots.length);
    point(view);
    tell(view, view.active, 0);
  } else if (step) {
    move(view, plot, step);
  } else return;
  event.preventDefault();
}

/** Moves the cursor by one point of a panel. */
function move(view, plot, step) {
  const places = [...new Set(plot.shapes.flatMap(([, { seeds, times }]) =>
    (seeds || []).flatMap(({ x }) => x.map((of) => of * times))))]
    .sort((a, b) => a - b);
  const at = cursor?.name === plot.panel.x.name ? cursor.at : -Infinity;
  const place = step > 0 ? places.findIndex((of) => of > at)
    : places.findLastIndex((of) => of < at);
  if (place >= 0) {
    setCursor({ name: plot.panel.x.name, at: places[place] });
  }
  view.active = plot;
  tell(view, plot, plot.height / 2);
}

/** Zooms an axis to shares of its length. */
function zoomBy(view, plot, which, shares) {
  const length = which === 'x' ? plot.width : plot.height;
  view.own.zoom[plot.names[which]] = shares.map((of) =>
    plot[which].back((which === 'x' ? of : 1 - of) * length));
  view.active = null;
  changed();
}

// ---------------------------------------------------------------- controls

/** Returns the buttons of a figure, and its slider over steps. */
function controls(view) {
  const { data, name, figure } = view;
  const marks = data.rows.flat().flatMap((panel) => panel?.marks || []);
  const has = (kind) => marks.find((mark) => mark.kind === kind);
  const kinds = { '': 'as drawn', linear: 'linear', log: 'logarithmic' };
  const axis = (which) => {
    const press = button('', () => {
      const next = Object.keys(kinds);
      view.own[which] = next[(next.indexOf(view.own[which]) + 1) % 3];
      view.own.zoom = {};
      changed();
    });
    view.updates.push(() => {
      press.textContent = `${which} axis: ${kinds[view.own[which]]}`;
    });
    return press;
  };
  const bar = html('div', { class: 'bar', role: 'toolbar',
    'aria-label': `${data.title}: axes, size and files` },
  axis('x'), axis('y'), button('Reset zoom', () => unzoom(view)),
  button('Alone', () => alone(figure), { 'aria-label': 'Alone on the screen' }),
  ...['SVG', 'PNG', 'CSV'].map((kind) => button(kind, () => save(view, kind), {
    'aria-label': `Save what is shown as ${kind}` })));
  if (has('contours')) {
    const press = button('Heights', () => {
      view.own.solid = !view.own.solid;
      changed();
    });
    view.updates.push(() => press.setAttribute('aria-pressed', view.own.solid));
    bar.prepend(press);
  }
  const steps = data.frames.length ? data.frames.map((frame) => frame.step)
    : has('ridges')?.steps || [];
  rove(bar);
  return html('div', {}, bar, ...steps[1] === undefined ? [] : [
    slider(view, `${name}-step`, steps)]);
}

/** Returns a slider over the steps of looks; its left end is all of them. */
function slider(view, id, steps) {
  const range = html('input', {
    type: 'range', id, min: -1, max: steps.length - 1,
    input() { view.own.frame = range.valueAsNumber; changed(); },
  });
  const told = html('output', { for: id });
  view.updates.push(() => {
    range.value = view.own.frame;
    const step = steps[view.own.frame];
    told.textContent = step === undefined ? 'as drawn' : `step ${step}`;
    range.setAttribute('aria-valuetext', told.textContent);
  });
  return html('label', { class: 'slider' }, 'Look ', range, ' ', told);
}

/** Returns the legend of a figure: buttons that show and hide. */
function legend(view) {
  const group = html('div', { class: 'legend', role: 'toolbar',
    'aria-label': 'Shown lines' });
  for (const { index, label, run } of view.data.keys) {
    const sample = svg('svg', { viewBox: '0 0 34 12', 'aria-hidden': 'true' });
    const press = button('', () => {
      if (run) toggle(state.runs, label);
      else {
        const hidden = new Set(view.own.hidden);
        toggle(hidden, index);
        view.own.hidden = [...hidden];
      }
      changed();
    });
    press.append(sample, label);
    view.updates.push(() => {
      const look = view.look(index);
      const plot = { marks: sample };
      sample.replaceChildren();
      add(plot, 'path', { d: 'M1 6H33', ...stroke(look, 1.8, 1, look.dash) });
      if (look.marker) markers(plot, look.marker, [[17, 6]], look);
      press.setAttribute('aria-pressed',
        run ? isShown(label) : !view.own.hidden.includes(index));
    });
    group.append(press);
  }
  rove(group);
  return html('div', {}, group, html('small', {}, view.data.reference));
}

/** Takes from a set what is in it, and adds what is not. */
function toggle(set, one) {
  if (!set.delete(one)) set.add(one);
}

/** Shows a figure alone, or among the others again. */
async function alone(figure) {
  if (document.fullscreenElement) { document.exitFullscreen(); return; }
  if (figure.classList.toggle('alone', false)) return;
  try {
    await figure.requestFullscreen();
  } catch {
    figure.classList.add('alone');
  }
}

// ---------------------------------------------------------------- files

/** Saves what is shown of a figure. */
async function save(view, kind) {
  if (kind === 'CSV') {
    const rows = csvOf(view).map((row) => row.map(quoted).join(','));
    deliver(new Blob([`${rows.join('\n')}\n`], { type: 'text/csv' }), view, kind);
    return;
  }
  const picture = pictureOf(view);
  const [width, height] = ['width', 'height'].map((of) =>
    Number(picture.getAttribute(of)));
  const text = new XMLSerializer().serializeToString(picture);
  const blob = new Blob([text], { type: 'image/svg+xml' });
  if (kind === 'SVG') { deliver(blob, view, kind); return; }
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  const canvas = html('canvas', { width: 2 * width, height: 2 * height });
  canvas.getContext('2d').drawImage(image, 0, 0, 2 * width, 2 * height);
  canvas.toBlob((png) => deliver(png, view, kind));
}

function deliver(blob, view, kind) {
  const href = URL.createObjectURL(blob);
  html('a', { href, download: `${view.name}.${kind.toLowerCase()}` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 9999);
}

/** Returns a figure as a picture of its own, on white, with its legend. */
function pictureOf(view) {
  const picture = view.ink.cloneNode(true);
  const box = view.ink.viewBox.baseVal;
  let { height } = box;
  view.stage.querySelectorAll('canvas').forEach((one) => {
    const { left, top, width, height: tall } = one.style;
    picture.append(svg('image', { href: one.toDataURL(), x: parseFloat(left),
      y: parseFloat(top), width: parseFloat(width), height: parseFloat(tall) }));
  });
  for (const { index, label, run } of view.data.keys) {
    if (run ? !isShown(label) : view.own.hidden.includes(index)) continue;
    const look = view.look(index);
    const plot = { marks: svg('g', { transform: `translate(20 ${height + 8})` }) };
    add(plot, 'path', { d: 'M0 0H34', ...stroke(look, 1.6, 1, look.dash) });
    if (look.marker) markers(plot, look.marker, [[17, 0]], look);
    add(plot, 'text', { x: 44, y: 4, fill: 'currentColor' }, label);
    picture.append(plot.marks);
    height += 18;
  }
  height += 8;
  picture.prepend(svg('rect', { width: box.width, height, fill: WHITE }));
  return build(picture, { color: BLACK, height,
    viewBox: `0 0 ${box.width} ${height}` }, []);
}

/** Returns a header and rows of what is shown, as the figure's own table has. */
function csvOf(view) {
  const rows = [['run', 'seed', 'panel', 'key', 'quantity', 'axis', 'x', 'y',
    'value']];
  for (const { panel, x, shapes } of view.plots) {
    for (const [mark, { seeds, edges, times }] of shapes) {
      const key = view.keys.get(mark.key);
      const tell = (seed, quantity, at, y, value) => {
        if (at >= x.low && at <= x.high) {
          rows.push([view.run(mark, panel), seed, panel.about || panel.title,
            key && !key.run ? key.label : '', quantity, panel.x.name, at, y,
            value]);
        }
      };
      const all = seeds ? [...edges.flatMap((edge, end) => ['mean', 'low', 'high']
        .map((kind) => [kind, edge.x, edge[kind], end])), ...seeds.flatMap((of) =>
        [of.y, of.high].map((y, end) => [of.seed, of.x, y, end]))] : [];
      for (const [seed, at, line, end] of all) {
        const ends = edges[1] || seeds[0].high ? ['_min', '_max'] : [''];
        line?.forEach((value, place) => tell(seed, mark.quantity + ends[end],
          at[place] * times, '', value));
      }
      const isFlat = mark.kind === 'contours';
      if (isFlat || mark.kind === 'cells') {
        mark.values.forEach((line, row) => line.forEach((value, column) =>
          tell(mark.seed ?? '', mark.quantity, mark.x[isFlat ? row : column],
            mark.y[isFlat ? column : row], value)));
      }
    }
  }
  return rows;
}

/** Returns a cell of a CSV that no spreadsheet takes for a formula. */
function quoted(cell) {
  const text = String(cell ?? 'nan');
  const isFormula = typeof cell === 'string' && '=+@-'.includes(text[0] ?? ' ');
  return `"${(isFormula ? `'${text}` : text).replaceAll('"', '""')}"`;
}

// ---------------------------------------------------------------- page

/** Returns the controls of all figures. */
function tools() {
  const filter = html('input', { type: 'search', placeholder: 'name, key=value',
    input() { state.filter = filter.value; changed(); } });
  updates.push(() => { filter.value = state.filter; });
  const known = units().map((unit) => [unit, UNITS[unit][0]]);
  const set = (name) => (value) => { state[name] = value; changed(); };
  const all = [html('label', {}, 'Show runs ', filter)];
  const seeds = [...new Set(facts.flatMap((fact) => fact.seeds))];
  if (seeds[1] !== undefined) {
    all.push(rove(html('span', { role: 'toolbar', 'aria-label': 'Seeds' },
      'Seeds ', ...seeds.map((seed) => {
        const press = button(String(seed), () => {
          toggle(state.seeds, seed);
          changed();
        }, { 'aria-label': `Seed ${seed}` });
        updates.push(() => press.setAttribute('aria-pressed',
          !state.seeds.has(seed)));
        return press;
      }))));
  }
  all.push(choice('Against', known, () => state.unit, (unit) => {
    cursor = null;
    for (const of of own.values()) of.zoom = {};
    set('unit')(unit);
  }), smoothing());
  if (keys().length && facts.length > 2) {
    const options = keys().map((key) => [key, key]);
    all.push(
      choice('Colours by', [['', 'run'], ...options], () => state.by, set('by')),
      choice('Panels by', [['', 'none'], ...options], () => state.split,
        set('split')));
  }
  return html('div', { class: 'tools', role: 'group', 'aria-label': 'Figures' },
    ...all, button('Show all', () => {
      Object.assign(state, { filter: '', runs: new Set(), seeds: new Set() });
      changed();
    }));
}

/** Returns the slider of the window over which lines are means. */
function smoothing() {
  const range = html('input', { type: 'range', min: 0, max: WINDOWS.length - 1,
    input() { state.smooth = WINDOWS[range.value]; changed(); } });
  const told = html('output');
  updates.push(() => {
    range.value = WINDOWS.indexOf(state.smooth);
    told.textContent = state.smooth ? `mean of ${state.smooth}` : 'as drawn';
    range.setAttribute('aria-valuetext', told.textContent);
  });
  return html('label', {}, 'Smooth ', range, ' ', told);
}

/** Makes the columns of a table buttons that sort it. */
function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent) return;
    const press = button('', () => {
      const isUp = head.ariaSort === 'ascending';
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      head.ariaSort = isUp ? 'descending' : 'ascending';
      const value = ({ cells }) =>
        cells[column]?.dataset.value ?? cells[column]?.textContent ?? '';
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        value(a) - value(b) || value(a).localeCompare(value(b)));
      table.tBodies[0].append(...(isUp ? rows.reverse() : rows));
    });
    press.append(...head.childNodes);
    head.append(press);
  });
}

/** Begins: what the address says is shown. */
function begin() {
  state.by = firstKey();
  untouched = JSON.stringify({ ...state, runs: [], seeds: [], own: [] });
  document.querySelectorAll('#summary table').forEach(sortable);
  const blocks = document.querySelectorAll('script[data-figure]');
  if (!blocks.length) return;
  document.getElementById('figures').after(tools(), html('p', {
    id: 'keys', class: 'unseen' }, 'Arrows left and right move the cursor, up '
    + 'and down go to another panel, with Shift they move the axes; plus and '
    + 'minus zoom, Escape ends it.'),
  html('div', { id: 'said', class: 'unseen', role: 'status' }));
  views.push(...[...blocks].map((block) => new View(block)));
  readAddress();
  addEventListener('hashchange', () => {
    if (address()[1]) readAddress();
    changed();
  });
  changed();
}

begin();
