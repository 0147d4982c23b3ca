// Lets the figures of the page answer: which value is that, what at this step,
// only these runs, on other axes.
//
// A figure stands on the page still, and beside it its data, which
// `drawing/interactive.py` writes. When it comes near the screen it is drawn
// here, in the place of the still one, from these data alone: nothing is
// requested, and what is told is put on the page as text. A kind of mark has a
// function in SPANS, what its axes have to hold, and one in DRAW.

const NARROW = 640; // pixels of a telephone, as in the style of the page
const FEWEST = 5; // seeds of an interval, see results/seeds.py
const RIDGE = 1.6; // height of a histogram, see static.py
const GREY = '#7F7F7F';
const WHITE = '#FFFFFF';
const BLACK = '#000000';
const INK = 'currentColor'; // dark on light, light on dark
// What is chosen for one figure: kinds of its axes, look of its slider, ...
const ALONE = { x: '', y: '', frame: -1, solid: false, hidden: [], zoom: {} };

const byId = (id) => document.getElementById(id);
const SVG = byId('drawn').namespaceURI;
const { runs, units, groups, by, colours, dashes, shapes } =
  JSON.parse(byId('runs').textContent);
const factOf = new Map(runs.map((fact) => [fact.name, fact]));
const groupsOf = new Map(groups); // key of configs -> [value, its runs]
// What all figures show; what one shows stands in `own`.
const state = {
  filter: '', runs: [], seeds: [], unit: units[0], smooth: 0, by, split: '',
};
const own = new Map(); // name of a figure -> what is chosen for it alone
const views = [];
const updates = []; // of controls, when something else has changed
let looks = new Map(); // run -> its look, where a key colours runs
let few = true; // whether few runs are shown
let cursor = null; // {name of an axis, at}
let identity = 0; // of the last clip path

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
const button = (click, ...children) =>
  html('button', { type: 'button', click }, ...children);

/** Makes many buttons one stop of the tab key: arrows go between them. */
function rove(group) {
  const every = [...group.querySelectorAll('button:not([hidden])')];
  const stopAt = (one) => every.forEach((of) => {
    of.tabIndex = of === one ? 0 : -1;
  });
  stopAt(every[0]);
  group.addEventListener('keydown', ({ key, target }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    const place = every.indexOf(target);
    if (place < 0 || !step) return;
    const next = every.at((place + step) % every.length);
    stopAt(next);
    next.focus();
  });
}

/** Lets inputs set the fields that they name, and show what these are. */
function bind(root, of, updates) {
  for (const input of root.querySelectorAll('[name]')) {
    const isNumber = input.type === 'range';
    input.addEventListener('input', () => {
      of()[input.name] = isNumber ? Number(input.value) : input.value;
      changed();
    });
    updates.push(() => { input.value = of()[input.name]; });
  }
}

/** Tells beside a range what it is at, to all. */
function told(range, text) {
  range.nextElementSibling.textContent = text;
  range.setAttribute('aria-valuetext', text);
}

/** Returns what a template of the page holds. */
const copy = (id) => byId(id).content.cloneNode(true).firstElementChild;

/** Returns a number as on an axis: 0.001, 2e-5. */
function short(number) {
  const size = Math.abs(number);
  const rounded = Number(number.toPrecision(6));
  if (!size || (size >= 1e-3 && size < 1e6)) return String(rounded);
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

/** Returns what is shown as text. */
function chosen() {
  const alone = JSON.stringify(ALONE);
  return JSON.stringify({ ...state, own: [...own].filter(([, of]) =>
    JSON.stringify(of) !== alone) });
}
const untouched = chosen();

/** Shows what the address says, if it is one of this page. */
function readAddress() {
  const [place, query] = address();
  try {
    const told = JSON.parse(decodeURIComponent(query));
    const isGood = Object.keys(state).every((name) =>
      told[name].constructor === state[name].constructor);
    if (!isGood || !units.includes(told.unit)) return;
    for (const name of Object.keys(state)) state[name] = told[name];
    for (const [name, of] of told.own) own.set(name, { ...ALONE, ...of });
  } catch { return; }
  byId(place.slice(1))?.scrollIntoView();
}

/** Draws what has changed, and keeps it in the address. */
function changed() {
  looks = looksBy(state.by);
  few = runs.filter(({ name }) => isShown(name)).length < 13;
  const [place] = address();
  const text = chosen();
  const query = text === untouched ? '' : `?${encodeURIComponent(text)}`;
  // A strict viewer may refuse it, and shows the rest.
  try { history.replaceState(null, '', `${place || '#'}${query}`); } catch { }
  for (const view of views) view.refresh();
  for (const update of updates) update();
}

// ---------------------------------------------------------------- runs

/** Returns whether a run, or one of its seeds, is shown. */
function isShown(run, seed) {
  if (state.runs.includes(run) || state.seeds.includes(seed)) return false;
  const fact = factOf.get(run);
  return !fact || state.filter.toLowerCase().split(',').some((part) =>
    part.split(' ').every((term) => meets(fact, seed, term)));
}

/** Returns whether a run meets a term: part of its name, or key=value. */
function meets(fact, seed, term) {
  const [key, ...rest] = term.split('=');
  if (!rest.length) return fact.name.toLowerCase().includes(term);
  const is = (value) => String(value).toLowerCase() === rest.join('=');
  if (key === 'seed') return seed === undefined
    ? fact.seeds.some(is) : is(seed);
  return Object.entries(fact.config).some(([name, value]) =>
    `.${name}`.endsWith(`.${key}`) && is(value));
}

/** Returns run -> look: a colour a value of a key, and no two runs alike. */
function looksBy(key) {
  const all = groupsOf.get(key) || [];
  return new Map(all.flatMap(([, names], group) => names.map((run, place) => {
    const marker = Math.floor(place / dashes.length) % 9;
    return [run, {
      colour: all.length <= colours.length ? colours[group]
        : `hsl(${(360 * group) / all.length} 70% ${40 + 15 * (group % 2)}%)`,
      dash: dashes[place % dashes.length],
      marker: marker && Object.keys(shapes)[marker - 1],
      hollow: place >= 9 * dashes.length,
    }];
  })));
}

/** Returns what a step of a run is in the chosen unit. */
const factor = (run) => factOf.get(run)?.units[units.indexOf(state.unit)] ?? 1;

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
    const [of, back] = log ? [Math.log10, (power) => 10 ** power]
      : [Number, Number];
    let [low, high] = [log ? this.positive : this.low, this.high].map(of);
    if (low > high) [low, high] = [0, 0];
    const wide = high - low > 1e-9 * Math.abs(high);
    const room = wide ? (high - low) * margin : log ? 1 : 0.5;
    [low, high] = [low - room, high + room].map(back);
    let [from, to] = axis.limits || [];
    from = axis.fixed ? from ?? low : Math.max(low, from ?? low);
    to = axis.fixed ? to ?? high : Math.min(high, to ?? high);
    return from < to && !(log && from <= 0) ? [from, to] : [low, high];
  }
}

/** Returns number -> pixel; `back` is its inverse. */
function scaled([low, high], from, to, log) {
  // What a logarithmic axis cannot show lies far below it.
  const of = log ? (number) => Math.log10(Math.max(number, low / 1e9)) : Number;
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
    of * power >= (high - low) / count);
  const first = Math.ceil(low / step);
  return numbers((high - low) / step + 1)
    .map((place) => Number(((first + place) * step).toPrecision(12)))
    .filter(is);
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
  if (!seed.size) return { x: seed.x, y: trailing(seed[end], count) };
  // Of a long line only the ends of equal parts are here, and their means.
  const wide = Math.max(1, Math.round(count / seed.size));
  return { x: seed.x_bins, y: trailing(seed[`${end}_bins`], wide) };
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

/** Returns the data of a figure, with the arrays that they name. */
async function loaded(block) {
  let text = block.textContent;
  if (block.type.endsWith('gzip')) {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (const at of bytes.keys()) bytes[at] = letters.charCodeAt(at);
    const whole = new Blob([bytes]).stream();
    text = await new Response(
      whole.pipeThrough(new DecompressionStream('gzip'))).text();
  }
  const [arrays, data] = text.split('\n');
  const every = JSON.parse(arrays);
  return JSON.parse(data, (_, of) => every[of?.$] ?? of);
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
    if (!own.has(this.name)) own.set(this.name, { ...ALONE });
    return own.get(this.name);
  }

  /** Reads its data when it first comes near the screen, and draws. */
  async start() {
    if (this.begun) return this.data && this.stale && this.draw();
    this.begun = true;
    const data = await loaded(this.block);
    this.data = data;
    this.keys = new Map(data.keys.map((key) => [key.index, key]));
    const root = copy('parts');
    const [bar, slider, stage, legend, reference, values] = root.children;
    const [ink, tip] = stage.children;
    Object.assign(this, { stage, ink, tip, values });
    const still = this.figure.querySelector('.still').ariaLabel;
    ink.ariaLabel = `${data.title}. ${still}`;
    legend.append(...data.keys.map((key) => legendOf(this, key)));
    reference.append(data.reference);
    values.addEventListener('toggle', () => point(this));
    controls(this, root, bar, slider);
    [bar, legend].forEach(rove);
    this.figure.prepend(root);
    this.figure.classList.add('live');
    listen(this);
    return new ResizeObserver(() => this.draw()).observe(stage);
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
        DRAW[mark.kind](plot, mark, this.look(mark.key), shape);
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
    return key?.run && looks.get(key.label) || key
      || { colour: GREY, dash: [] };
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
  return rows.map((row) => row.flatMap((panel) => {
    if (!panel) return [null];
    const seed = panel.marks.find((mark) => mark.seed >= 0)?.seed;
    return panel.run && !isShown(panel.run, seed) ? [] : apart(view, panel);
  })).filter((row) => row.some(Boolean));
}

/** Returns a panel a value of the key that sets runs apart. */
function apart(view, panel) {
  const run = (mark) => view.keys.get(mark.key)?.run && view.run(mark, panel);
  if (!groupsOf.has(state.split) || !panel.marks.some(run)) return [panel];
  return groupsOf.get(state.split).map(([value, names]) => ({
    ...panel,
    title: `${panel.title} ${state.split} ${value}`,
    ends: panel.ends.filter(([,, of]) => names.includes(of)),
    marks: panel.marks.filter((of) => !run(of) || names.includes(run(of))),
  })).filter((part) => part.marks.some((of) => run(of) && isShown(run(of))));
}

/** Lays panels out in blocks, as still pictures are; returns the height. */
function arrange(view, rows, width) {
  const { shares, abreast } = view.data;
  const columns = Math.max(1, ...rows.map((row) => row.length));
  const blocks = Math.ceil(columns / Math.max(1, Math.min(
    abreast[width < NARROW ? 1 : 0], Math.floor(width / 150))));
  const wide = Math.ceil(columns / blocks);
  view.plots = rows.flatMap((row, down) => row.flatMap((panel, column) => {
    if (!panel) return [];
    const across = column % wide;
    const [above, below] = [-1, 1].map((by) => rows[down + by]?.[column]);
    const left = across && row[column - 1];
    return [{
      view, panel, across,
      line: Math.floor(column / wide) * rows.length + down,
      title: above?.title === panel.title ? '' : panel.title,
      isTold: !(shares && below?.x.name === panel.x.name),
      isNamed: !left || !(shares || left.y.label === panel.y.label),
      isTicked: !left || !shares,
    }];
  }));
  return place(view, wide, width);
}

/** Sets where each panel stands; returns the height of all. */
function place(view, wide, width) {
  const { plots } = view;
  view.margin = (width < NARROW ? 58 : 64) + Math.max(0,
    ...plots.map(({ panel }) => namesBelow(panel.y) - 30));
  const lefts = numbers(wide).map((across) => plots.some((plot) =>
    plot.across === across && plot.isTicked) ? view.margin : 12);
  const sum = (of) => of.reduce((whole, one) => whole + one, 0);
  const inner = (width - sum(lefts)) / wide;
  const lines = Math.max(0, ...plots.map((plot) => plot.line + 1));
  let height = lines > 2 ? 150 : wide > 1 ? 200 : 250;
  const isAlone = view.figure.matches('.alone');
  if (isAlone) height = Math.max(height, (innerHeight - 280) / lines - 50);
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
  return panel.marks.flatMap((mark) => {
    const run = view.run(mark, panel);
    const isGone = view.own.hidden.includes(mark.key) || (run && !isShown(run));
    const shape = !isGone && (mark.seeds ? lineOf(mark, panel, run, log) : {});
    return shape ? [[mark, shape]] : [];
  });
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
  const isLine = mark.style === 'line' && !seeds[0].high;
  const isSome = seeds.length > 1 && seeds.length < FEWEST && isLine;
  return {
    seeds, edges, count,
    times: panel.x.name === 'step' ? factor(run) : 1,
    // Those of very many runs would hide all lines.
    points: count > 1 && isLine && few ? seeds : [],
    thin: isSome || !edges.length ? seeds.map((seed) => ({
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
  // Rows are named from 1 on; a single one stands where no name is.
  ridges: (mark, shape, view) => [[mark.edges], [view.own.frame < 0
    ? [1, mark.drawn.length + RIDGE] : [-2, RIDGE - 2]]],
  hatched: (mark) => [mark.spans, []],
  words: () => [[], []],
};
SPANS.bars = SPANS.lines;
SPANS.contours = SPANS.cells;

/** Gives all panels their scales; those that share an axis have one. */
function scale(view) {
  const extents = new Map();
  const each = (act) => view.plots.forEach((plot) => {
    ['x', 'y'].forEach((which) => act(plot, which, plot.panel[which]));
  });
  for (const plot of view.plots) plot.shapes = shapesOf(plot);
  each((plot, which) => {
    const name = plot.panel.names[which];
    if (!extents.has(name)) extents.set(name, new Extent());
    for (const [mark, shape] of plot.shapes) {
      const [x, y] = SPANS[mark.kind](mark, shape, view);
      for (const line of which === 'x' ? x : y) {
        extents.get(name).add(line, which === 'x' && shape.times || 1);
      }
    }
  });
  each((plot, which, axis) => {
    const extent = extents.get(plot.panel.names[which]);
    const log = view.isLog(axis, which) && extent.positive < Infinity;
    const zoom = view.own.zoom[plot.panel.names[which]];
    const isGood = zoom?.every(Number.isFinite) && !(log && zoom[0] <= 0);
    plot[which] = scaled(
      isGood ? zoom : extent.ends(axis, log, plot.panel.is_map ? 0 : 0.05),
      which === 'x' ? 0 : plot.height, which === 'x' ? plot.width : 0, log);
  });
}

/** Returns the x of all points of the lines of a panel, in order. */
const placesOf = (plot) => plot.places ??= [...new Set(plot.shapes.flatMap(
  ([{ at_x: x, values }, { seeds, edges, times }]) => values ? x
    : [...seeds || [], ...edges || []].flatMap(
      (of) => of.x.map((at) => at * times))))].sort((a, b) => a - b);

/** Returns the maps of a panel: [mark] whose values are numbers of a plane. */
const mapsOf = ({ shapes }) =>
  shapes.map(([mark]) => mark).filter((mark) => mark.values);

/** Writes a text beside a panel, or among its words. */
function write(plot, text, x, y, more, isTurned) {
  if (text) plot.words.append(svg('text', {
    transform: at(x, y) + (isTurned ? 'rotate(-90)' : ''),
    'text-anchor': 'middle', ...more }, text));
}

const at = (x, y) => `translate(${x} ${y})`;
const SMALL = { 'font-size': 10.5 };
const END = { 'text-anchor': 'end' };

/** Draws the axes of a panel, with its grid, labels and title. */
function axes(plot) {
  const { panel, view, width, height, title } = plot;
  const id = `clip-${identity += 1}`;
  plot.grid = svg('g', { stroke: INK, 'stroke-opacity': 0.16 });
  plot.marks = svg('g', { 'clip-path': `url(#${id})`, fill: 'none' });
  plot.words = svg('g', { fill: INK });
  plot.over = svg('g');
  view.ink.append(svg('g', { transform: at(plot.left, plot.top) },
    svg('clipPath', { id }, svg('rect', { width, height })),
    plot.grid, plot.marks, plot.words, plot.over));
  const fit = (text, y) => write(plot, fitted(text, width + 20), width / 2, y);
  fit(title, panel.note ? -23 : -8);
  fit(panel.note, -8);
  if (view.own.solid && panel.is_map) return;
  plot.grid.append(svg('path', { d: `M0 0V${height}H${width}`, fill: 'none',
    'stroke-opacity': 1 }));
  axisTicks(plot, 'x');
  axisTicks(plot, 'y');
  if (plot.isTold) fit(labelOf(panel.x), height + 34 + namesBelow(panel.x));
  if (plot.isNamed) {
    const label = fitted(panel.y.label, height + 10);
    write(plot, label, 14 - view.margin, height / 2, {}, true);
  }
}

/** Returns a number of an axis, or its name where it has one. */
const named = ({ names }, number) => names[number - 1] ?? short(number);

const labelOf = (axis) =>
  axis.name === 'step' ? state.unit : axis.label;

/** Draws the grid and the ticks of an axis, with numbers or names. */
function axisTicks(plot, which) {
  const { panel, width, height } = plot;
  const axis = panel[which];
  const scale = plot[which];
  const isX = which === 'x';
  const { names } = axis;
  const is = (number) => number >= scale.low && number <= scale.high;
  let all = (axis.ticks || []).filter(is);
  if (!all.length) all = ticks(scale, isX ? width / 60 + 1 : height / 40 + 1);
  let text = (of) => axis.percent ? `${short(of * 100)} %` : short(of);
  if (names.length) {
    const stride = Math.ceil(names.length / 16);
    all = numbers(names.length / stride).map((of) => of * stride + 1);
    text = (of) => fitted(names[of - 1], 100);
  }
  let last = -Infinity;
  for (const number of all) {
    const pixel = scale(number);
    const room = isX && !namesBelow(axis) ? 30 : 12;
    if (!is(number) || Math.abs(pixel - last) < room) continue;
    last = pixel;
    if (!panel.is_map) plot.grid.append(svg('path', {
      d: isX ? `M${pixel} 0V${height}` : `M0 ${pixel}H${width}` }));
    if (!isX && plot.isTicked) write(plot, text(number), -5, pixel + 4, END);
    if (!isX || !plot.isTold) continue;
    if (namesBelow(axis)) {
      write(plot, text(number), pixel + 4, height + 6, END, true);
    } else write(plot, text(number), pixel, height + 16);
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
        .map((pixel) => Math.round(pixel * 10) / 10));
    } else if (all.at(-1).length) all.push([]);
  });
  return all.filter((piece) => piece.length);
}

/** Adds to the marks of a panel. */
function add(plot, tag, attributes, ...children) {
  plot.marks.append(svg(tag, attributes, ...children));
}

/** Adds pieces, each as a path, as one. */
function trace(plot, all, path, attributes) {
  const d = all.map((piece) => `M${path(piece).join('L')}`).join('');
  if (d) add(plot, 'path', { d, ...attributes });
}

const line = (plot, x, y, attributes, times) =>
  trace(plot, pieces(plot, x, [y], times), (piece) => piece, attributes);

/** Fills between two lines; a point that stands alone gets a bar. */
const area = (plot, x, low, high, attributes, times) =>
  trace(plot, pieces(plot, x, [low, high], times), (piece) => {
    const [[left, ...ends]] = piece;
    const of = piece[1] ? piece : [[left - 2, ...ends], [left + 2, ...ends]];
    return [...of.map(([at, top]) => [at, top]),
      ...of.map(([at,, top]) => [at, top]).reverse()];
  }, attributes);

/** Puts a marker on each of some points; those with long names are open. */
function markers(plot, marker, points, look) {
  const colour = tone(look);
  const isOpen = shapes[marker] && marker[1];
  for (const [x, y] of points) {
    add(plot, 'path', {
      d: shapes[marker] || shapes.o, stroke: colour, transform: at(x, y),
      fill: isOpen ? 'none' : look.hollow ? WHITE : colour,
      'stroke-width': isOpen || look.hollow ? 1.4 : 0,
    });
  }
}

// Black would not be seen in the dark.
const tone = ({ colour = BLACK }) =>
  colour === BLACK ? INK : colour;

const stroke = (look, width, opacity = 1, dash = []) => ({
  stroke: tone(look), 'stroke-width': width, 'stroke-opacity': opacity,
  'stroke-dasharray': dash.map((of) => of * width),
});

const filled = (look, opacity) => ({
  fill: tone(look), 'fill-opacity': opacity });

const DRAW = {
  lines(plot, mark, look, shape) {
    const { edges, seeds, points, thin, times } = shape;
    if (seeds[0].high) {
      bandOf(plot, shape, look, mark.style === 'line' ? 0.5 : 0.25);
      return;
    }
    const [edge] = edges;
    const hasMean = edge?.mean.some((mean) => mean !== null);
    for (const { x, y } of points) {
      line(plot, x, y, stroke(look, 0.6, hasMean ? 0.25 / seeds.length : 0.6),
        times);
    }
    for (const { x, y } of thin) {
      const style = seeds.length > 1 ? stroke(look, 0.7, 0.45)
        : stroke(look, 1.6, 1, look.dash);
      line(plot, x, y, style, times);
    }
    if (!edge) return;
    const style = {
      thin: stroke(look, 1, 1, [1, 2]), further: stroke(look, 0.7, 0.8),
      grey: stroke(look, 0.8),
    }[mark.style] || stroke(look, 1.6, 1, look.dash);
    line(plot, edge.x, edge.mean, style, times);
    if (mark.style !== 'line') return;
    const all = pieces(plot, edge.x, [edge.mean], times);
    const every = all.flat();
    const stride = Math.floor(every.length / 6) || 1; // enough to follow it
    markers(plot, look.marker, [
      ...all.filter((piece) => !piece[1]).flat(),
      ...every.filter((_, place) => look.marker && place % stride === 0),
    ], look);
    interval(plot, edge, look, times);
  },
  bars(plot, mark, look, { edges: [low, high], times }) {
    for (const [left, from, to] of high
      ? pieces(plot, low.x, [low.mean, high.mean], times).flat() : []) {
      add(plot, 'path', {
        d: `M${left - 3} ${from}h6m-3 0V${to}m-3 0h6`, ...stroke(look, 0.9) });
    }
  },
  rule(plot, mark, look) {
    const dash = mark.key === null ? [4, 3] : [1, 2];
    add(plot, 'path', { d: `M0 ${plot.y(mark.at)}H${plot.width}`,
      ...stroke(look, 1, 1, dash) });
  },
  points(plot, mark, look) {
    const { x, y, shape } = mark;
    const top = (1 - mark.place) * plot.height;
    markers(plot, shape, y ? pieces(plot, x, [y]).flat()
      : x.map((of) => [plot.x(of), top]),
    { ...look, hollow: shape === 'hollow' });
  },
  reference(plot, mark, look) {
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
      write(plot, number.toFixed(2), plot.x(middle(mark.x, across)),
        plot.y(middle(mark.y, down)) + 4, {
          ...SMALL, fill: share(mark.scale, number) > 0.6 ? BLACK : WHITE });
    }));
  },
  fan(plot, mark) {
    mark.value.forEach((value, place) => line(plot, mark.x[place],
      mark.y[place], stroke({ colour: shade(mark.scale, value) }, 0.9)));
  },
  ridges(plot, mark, look) {
    const { own: { frame }, data } = plot.view;
    const { edges, heights, drawn, steps } = mark;
    const middles = edges.slice(1).map((of, at) => (of + edges[at]) / 2);
    const top = (at, row) => heights[at].map((of) =>
      row + (RIDGE * of) / Math.max(...heights[at], 1e-12));
    const shown = frame < 0 ? drawn : [steps.indexOf(data.steps[frame])];
    if (shown[0] < 0) return; // no look of this run was at that step
    for (const row of numbers(shown.length).reverse()) {
      const at = frame < 0 ? row + 1 : -2;
      area(plot, middles, middles.map(() => at), top(shown[row], at), {
        ...filled(look, 0.35), stroke: tone(look), 'stroke-width': 0.6 });
    }
    // A single one has the first behind it, to be compared with.
    if (frame < 0 || !shown[0]) return;
    line(plot, middles, top(0, -2), stroke({ colour: GREY }, 1));
  },
  contours(plot, mark) {
    if (plot.view.own.solid) solid(plot, mark);
    else surface(plot, mark);
  },
  hatched(plot, mark) {
    for (const [from, to] of mark.spans) hatch(plot, plot.x(from), plot.x(to));
  },
  words(plot, mark) {
    write(plot, mark.text, Math.min(mark.x * plot.width, plot.width - 4),
      (1 - mark.y) * plot.height, {
        ...SMALL, 'text-anchor': mark.x > 0.9 ? 'end' : 'start' });
  },
};

/** Draws a band: between the means of its edges, or of each seed. */
function bandOf(plot, { edges, thin, times }, look, alpha) {
  const style = (count) => ({
    ...filled(look, alpha / count), stroke: tone(look), 'stroke-width': 0.4 });
  const [low, high] = edges;
  for (const edge of edges) interval(plot, edge, look, times);
  if (high) area(plot, low.x, low.mean, high.mean, style(1), times);
  else for (const of of thin) {
    area(plot, of.x, of.y, of.high, style(thin.length), times);
  }
}

/** Shades the interval of a mean, if it has one. */
function interval(plot, { x, low, high }, look, times) {
  if (low) area(plot, x, low, high, filled(look, 0.2), times);
}

/** Marks where seeds of shown runs diverged. */
function divergences(plot) {
  const { panel, view, height } = plot;
  const groups = [];
  for (const [step, index, run] of panel.ends.filter((of) => isShown(of[2]))) {
    const left = plot.x(step * factor(run));
    add(plot, 'path', { d: `M${left} 0V${height}`,
      ...stroke(view.look(index), 1.4, 1, [1, 1.6]) });
    if (left > plot.width) continue;
    const near = groups.find((group) => Math.abs(left - group.left) < 13);
    if (near) near.steps.add(step);
    else groups.push({ left, steps: new Set([step]) });
  }
  for (const { left, steps } of groups) {
    const ordered = [...steps].sort((a, b) => a - b);
    const text = ordered.length > 2
      ? `${ordered[0]} to ${ordered.at(-1)}` : ordered.join(' and ');
    const beside = left + (left > 0.1 * plot.width ? -4 : 12);
    write(plot, `diverged at ${text}`, beside, height / 2, SMALL, true);
  }
}

// ---------------------------------------------------------------- maps

/** Returns where a number lies between the ends of a scale, from 0 to 1. */
function share({ low, high, logarithmic }, number) {
  const of = logarithmic ? Math.log : Number;
  const part = (of(number) - of(low)) / (of(high) - of(low));
  return Math.min(1, Math.max(0, Number.isNaN(part) ? 0.5 : part));
}

/** Returns the colour of a number; surfaces have few, one a level. */
const shade = (scale, number) =>
  scale.shades[Math.floor(share(scale, number) * (scale.shades.length - 1e-9))];

/** Fills a panel with the colours of numbers. */
function raster(plot, scale, column, row, numberAt) {
  const [width, height] = [plot.width, plot.height].map(Math.ceil);
  const canvas = html('canvas', { width, height });
  const ink = canvas.getContext('2d');
  const columns = numbers(width).map((left) => column(left + 0.5));
  for (const top of numbers(height)) {
    const down = row(top + 0.5);
    columns.forEach((across, left) => {
      const number = numberAt(across, down) ?? null;
      if (number === null) return;
      ink.fillStyle = shade(scale, number);
      ink.fillRect(left, top, 1, 1);
    });
  }
  add(plot, 'image', { href: canvas.toDataURL(), width, height });
}

/** Hatches between two pixels of a panel. */
function hatch(plot, from, to) {
  add(plot, 'rect', {
    x: Math.min(from, to), width: Math.abs(to - from), height: plot.height,
    fill: 'url(#hatch)' });
}

/** Returns where a number lies along a line: 0 to 1. */
const part = (line, number) => (number - line[0]) / (line.at(-1) - line[0]);

/** Draws a surface in shades between lines of equal height, and the way. */
function surface(plot, mark) {
  if (mark.values.flat().includes(null)) hatch(plot, 0, plot.width);
  const along = (line, axis) => (pixel) =>
    part(line, axis.back(pixel)) * (line.length - 1);
  raster(plot, mark.scale, along(mark.x, plot.x), along(mark.y, plot.y),
    (x, y) => between(mark.values, x, y));
  levels(plot, mark);
  const white = { colour: WHITE };
  if (!mark.way) {
    markers(plot, 'plus', [[plot.x(0), plot.y(0)]], white);
    return;
  }
  const points = mark.way.map(([x, y]) => [plot.x(x), plot.y(y)]);
  add(plot, 'path', { d: `M${points.join('L')}`, stroke: WHITE });
  points.forEach(([cx, cy], place) => add(plot, 'circle', {
    cx, cy, r: 3, stroke: WHITE,
    fill: shade(mark.scale, mark.way_values[place] ?? Infinity) }));
  markers(plot, 'ring', points.slice(-1), white);
}

/** Draws lines of equal height, where colours meet. */
function levels(plot, mark) {
  const { low, high, logarithmic, shades } = mark.scale;
  const { back } = scaled([low, high], 0, shades.length, logarithmic);
  const all = numbers(shades.length - 1).map((of) => back(of + 1));
  const pieces = quads(mark).flatMap((corners) => all.flatMap((level) => {
    const ends = corners.flatMap(([left, top, from], place) => {
      const [right, below, to] = corners[(place + 1) % 4];
      if (from < level === to < level) return [];
      const part = (level - from) / (to - from);
      return [[plot.x(left + part * (right - left)),
        plot.y(top + part * (below - top))].map((of) => of.toFixed(1))];
    });
    return [ends.slice(0, 2), ends.slice(2)]; // two of a saddle
  })).filter((piece) => piece[0]);
  trace(plot, pieces, (piece) => piece, {
    ...stroke({}, 0.5, 0.6), stroke: BLACK });
}

/** Returns the corners of each cell of a surface: [x, y, number]. */
const quads = ({ x, y, values }) => numbers(x.length - 1).flatMap((i) =>
  numbers(y.length - 1).map((j) =>
    [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]].map(([a, b]) =>
      [x[a], y[b], values[a][b]])))
  .filter((corners) => corners.every(([,, number]) => number !== null));

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
    const plot = { words: svg('g', { fill: INK }) };
    const axis = scaled([low, high], 0, long, scale.logarithmic);
    shades.forEach((fill, place) => plot.words.append(svg('rect', {
      x: (place * long) / shades.length, height: 10, fill,
      width: long / shades.length + 0.5 })));
    for (const number of low < high ? ticks(axis, 4) : []) {
      write(plot, short(number), axis(number), 23);
    }
    write(plot, fitted(scale.label, width), long / 2, 39);
    view.ink.append(build(plot.words, {
      transform: at((width - long) / 2, top + 8) }, []));
    top += 54;
  }
  return Math.max(top, 10);
}

// ---------------------------------------------------------------- surfaces

/** Puts on a panel a canvas, with its surface as a field of heights. */
function solid(plot, mark) {
  const { view, width, height, left, top } = plot;
  const canvas = html('canvas', {
    width: width * devicePixelRatio, height: height * devicePixelRatio,
    style: `left:${left}px;top:${top}px;width:${width}px;height:${height}px`,
  });
  view.stage.append(canvas);
  canvas.redraw = () => heights(canvas, plot, mark);
  canvas.redraw();
}

/** Turns all surfaces of a figure. */
function turn(view, around, up) {
  view.turn.around += around / 120;
  view.turn.up = Math.min(1.5, Math.max(0.1, view.turn.up + up / 120));
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
      height / 2
        + (near * Math.sin(up) - (z - 0.5) * Math.cos(up) * 0.7) * size,
      near,
    ];
  };
}

/** Draws a field of heights, the far cells first, and the way on it. */
function heights(canvas, { view, width, height, panel }, mark) {
  const ink = canvas.getContext('2d');
  ink.reset();
  ink.scale(canvas.width / width, canvas.height / height);
  const at = projection(view.turn, width, height);
  const outline = (points) => {
    ink.beginPath();
    for (const [left, top] of points) ink.lineTo(left, top);
  };
  const colour = getComputedStyle(view.stage).color;
  Object.assign(ink, { strokeStyle: colour, lineWidth: 0.5,
    textAlign: 'center' });
  outline([at(0, 0, 0), at(1, 0, 0), at(1, 1, 0), at(0, 1, 0), at(0, 0, 0)]);
  ink.stroke();
  for (const { points, number } of cellsOf(mark, at)) {
    outline(points);
    ink.fillStyle = shade(mark.scale, number);
    ink.fill();
    ink.strokeStyle = '#0005';
    ink.stroke();
  }
  ink.fillStyle = colour;
  ink.fillText(panel.x.label, ...at(0.5, -0.1, 0).slice(0, 2));
  ink.fillText(panel.y.label, ...at(-0.1, 0.5, 0).slice(0, 2));
  outline((mark.way || []).map(([x, y], place) => at(part(mark.x, x),
    part(mark.y, y), share(mark.scale, mark.way_values[place] ?? Infinity))));
  Object.assign(ink, { strokeStyle: WHITE, lineWidth: 2.5 });
  ink.stroke();
}

/** Returns the cells of a surface, projected, the far ones first. */
const cellsOf = (mark, at) => quads(mark).map((corners) => {
  const points = corners.map(([x, y, number]) =>
    at(part(mark.x, x), part(mark.y, y), share(mark.scale, number)));
  return { points, number: (corners[0][2] + corners[2][2]) / 2,
    near: points[0][2] + points[2][2] };
}).sort((a, b) => a.near - b.near);

// ---------------------------------------------------------------- cursor

/** Returns what the lines of a panel are at a place of its x axis. */
function readings({ view, panel, shapes }, at) {
  return shapes.flatMap(([mark, { seeds, edges, count, times }]) => {
    if (!seeds) return [];
    const key = view.keys.get(mark.key);
    const fact = factOf.get(view.run(mark, panel));
    const isOne = panel.marks.filter((of) => of.key === mark.key).length < 2;
    const name = !key ? mark.quantity : isOne ? key.label
      : `${key.label}, ${mark.quantity}`;
    const tell = (label, x, ...lines) => {
      const place = nearest(x, times, at);
      if (place < 0) return { label, text: '–', y: [] };
      const y = lines.filter(Boolean).map((line) => line[place]);
      return {
        label, look: view.look(mark.key), x: x[place] * times, y,
        text: y.map((of) => of ?? 'not finite').join(' to '),
      };
    };
    const kind = count > 1 ? `mean of ${count}` : 'mean';
    const mean = edges.length && (seeds[1] || count > 1) ? [tell(
      `${name}, ${kind}`, edges[0].x, ...edges.map((edge) => edge.mean))] : [];
    const few = mean.length && seeds.length >= FEWEST ? [] : seeds;
    return [...mean, ...few.map((seed) => tell(
      fact?.seeds[1] >= 0 ? `${name}, seed ${seed.seed}` : name,
      seed.x, seed.y, seed.high))];
  });
}

/** Sets the cursor of all figures with this axis; null takes it away. */
function setCursor(to) {
  cursor = to;
  for (const view of views) if (view.data && view.near) point(view);
}

/** Draws the cursor of a figure, and tells the values there. */
function point(view) {
  const isFocused = view.ink.matches(':focus-visible');
  for (const plot of view.plots) {
    const { width, height, over, panel } = plot;
    over.replaceChildren();
    if (isFocused && plot === (view.active || view.plots[0])) {
      over.append(svg('rect', { width, height, fill: 'none',
        ...stroke({}, 2, 1, [2, 2]) }));
    }
    const left = cursor?.name === panel.x.name ? plot.x(cursor.at) : -1;
    if (!(left >= 0 && left <= width)) continue;
    over.append(svg('path', { d: `M${left} 0V${height}`, ...stroke({}, 1) }));
    if (plot.level >= 0) over.append(svg('path', {
      d: `M0 ${plot.level}H${width}`, ...stroke({}, 1) }));
    for (const { x, y, look } of readings(plot, cursor.at)) {
      for (const number of y.filter((of) => onAxis(plot.y, of))) {
        over.append(svg('circle', {
          cx: plot.x(x), cy: plot.y(number), r: 3, fill: tone(look) }));
      }
    }
  }
  if (view.values.open) fillTable(view);
}

/** Tells the values of a panel in a box beside the pointer. */
function tell(view, plot, top) {
  const { tip } = view;
  tip.hidden = !plot || cursor?.name !== plot.panel.x.name;
  if (tip.hidden) return;
  const { panel } = plot;
  const lines = readings(plot, cursor.at);
  for (const { kind, x, y, at_y, values, quantity } of mapsOf(plot)) {
    const isCells = kind === 'cells';
    const [across, down] = [[x, cursor.at], [y, plot.y.back(top)]].map(
      ([line, of]) => isCells ? line.findLastIndex((edge) => edge <= of)
        : nearest(line, 1, of));
    const number = isCells ? values[down]?.[across] : values[across]?.[down];
    lines.push({ text: number ?? '–', label: [quantity, panel.y.label,
      at_y[down] === undefined ? '' : named(panel.y, at_y[down])].join(' ') });
  }
  tip.replaceChildren(
    html('b', {}, `${labelOf(panel.x)} ${named(panel.x, cursor.at)}`),
    ...lines.map(({ label, text, look = {} }) => html('div', {},
      html('i', { style: `background:${tone(look)}` }), `${label}: ${text}`)));
  const left = plot.left + plot.x(cursor.at);
  const { clientWidth } = view.stage;
  const [side, space] = left > clientWidth / 2
    ? ['right', clientWidth - left] : ['left', left];
  tip.style.cssText = `top:${plot.top + 8}px;${side}:${space + 10}px`;
  if (view.ink.matches(':focus-visible')) {
    byId('said').textContent = `${panel.title} ${tip.innerText}`;
  }
}

/** Moves the cursor to the point of a panel that is nearest to a number. */
function snap(plot, at) {
  const places = placesOf(plot);
  const best = nearest(places, 1, at);
  setCursor({ name: plot.panel.x.name, at: best < 0 ? at : places[best] });
}

/** Fills the table of the values at the cursor. */
function fillTable(view) {
  const rows = view.plots.filter((plot) => cursor?.name === plot.panel.x.name)
    .flatMap((plot) => readings(plot, cursor.at).map(({ label, x, text }) =>
      html('tr', {}, ...[plot.panel.about,
        plot.panel.y.label, label, x === undefined ? '' : short(x), text]
        .map((cell) => html('td', {}, cell)))));
  view.values.querySelector('tbody').replaceChildren(...rows);
}

/** Listens to pointer and keys on the panels of a figure. */
function listen(view) {
  const { ink } = view;
  let drag = null;
  const place = ({ clientX, clientY }) => {
    const box = ink.getBoundingClientRect();
    const [left, top] = [clientX - box.left, clientY - box.top];
    const plot = view.plots.find((of) =>
      left >= of.left && left <= of.left + of.width
      && top >= of.top && top <= of.top + of.height);
    return { plot, left, top };
  };
  build(ink, {
    pointermove(event) {
      const { plot, left, top } = place(event);
      if (drag) { drag(left, top); return; }
      if (view.own.solid) {
        if (event.buttons) turn(view, event.movementX, event.movementY);
        return;
      }
      if (plot) {
        view.active = plot;
        snap(plot, plot.x.back(left - plot.left));
      }
      tell(view, plot, top - plot?.top);
    },
    pointerleave: () => tell(view),
    pointerdown(event) {
      const { plot, left, top } = place(event);
      ink.setPointerCapture(event.pointerId);
      const isNone = !plot || view.own.solid || event.button;
      if (isNone || event.pointerType === 'touch') return;
      drag = dragged(view, plot, left - plot.left, top - plot.top);
    },
    pointerup(event) {
      const { left, top } = place(event);
      drag?.(left, top, true);
      drag = null;
    },
    mousedown(event) {
      if (!place(event).plot) return;
      event.preventDefault(); // selects no text
      ink.focus({ preventScroll: true });
    },
    dblclick: () => unzoom(view),
    keydown: (event) => pressed(view, event),
    blur: () => tell(view),
  }, []);
}

/** Returns what shows the part that is dragged over, and zooms at the end. */
function dragged(view, plot, fromX, fromY) {
  const frame = svg('rect', { fill: INK, 'fill-opacity': 0.15 });
  plot.over.append(frame);
  const ends = (from, to, size) => [from, to].map((of) =>
    Math.min(size, Math.max(0, of))).sort((a, b) => a - b);
  return (left, top, isEnd) => {
    const [x, right] = ends(fromX, left - plot.left, plot.width);
    const [y, below] = ends(fromY, top - plot.top, plot.height);
    build(frame, { x, y, width: right - x, height: below - y }, []);
    if (!isEnd) return;
    frame.remove();
    if (right - x < 7) return;
    const zoom = { [plot.panel.names.x]: [x, right].map(plot.x.back) };
    if (below - y > 12) zoom[plot.panel.names.y] = [below, y].map(plot.y.back);
    Object.assign(view.own, { zoom: { ...view.own.zoom, ...zoom } });
    changed();
  };
}

function unzoom(view) {
  view.own.zoom = {};
  changed();
}

/** Answers a key: arrows move cursor and panel, + and - zoom, Shift pans. */
function pressed(view, event) {
  const { plots } = view;
  const { key } = event;
  const plot = plots.includes(view.active) ? view.active : plots[0];
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
  const isUp = key === 'ArrowUp' || key === 'ArrowDown';
  if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
  view.active = plot;
  if (key === '+') zoomBy(view, plot, 'x', 0.2, 0.8);
  else if (key === '-') zoomBy(view, plot, 'x', -1 / 3, 4 / 3);
  else if (key === 'Escape') {
    view.figure.classList.remove('alone');
    leaveScreen();
    setCursor(null);
    unzoom(view);
  } else if (!step) return;
  else if (view.own.solid) {
    turn(view, isUp ? 0 : step * 12, isUp ? step * 12 : 0);
  } else if (event.shiftKey) {
    const by = (isUp ? -step : step) / 5;
    zoomBy(view, plot, isUp ? 'y' : 'x', by, 1 + by);
  } else if (isUp && !rise(view, plot, -step)) {
    view.active = plots.at((plots.indexOf(plot) + step) % plots.length);
    point(view);
    tell(view, view.active, 0);
  } else if (!isUp) move(view, plot, step);
  event.preventDefault();
}

/** Moves the cursor by a row of a map; returns whether there is one. */
function rise(view, plot, step) {
  const rows = mapsOf(plot)[0]?.at_y || [];
  const row = (plot.row ?? (step > 0 ? -1 : rows.length)) + step;
  if (!(row in rows)) return false;
  plot.row = row;
  plot.level = plot.y(rows[row]);
  if (cursor?.name !== plot.panel.x.name) move(view, plot, 1);
  point(view);
  tell(view, plot, plot.level);
  return true;
}

/** Moves the cursor by one point of a panel. */
function move(view, plot, step) {
  const { name } = plot.panel.x;
  const at = cursor?.name === name ? cursor.at : -Infinity;
  const to = step > 0 ? placesOf(plot).find((of) => of > at)
    : placesOf(plot).findLast((of) => of < at);
  if (to !== undefined) setCursor({ name, at: to });
  tell(view, plot, plot.level ?? plot.height / 2);
}

/** Zooms an axis to shares of its length. */
function zoomBy(view, plot, which, ...shares) {
  const { low, high, log } = plot[which];
  const share = scaled([low, high], 0, 1, log);
  const name = plot.panel.names[which];
  view.own.zoom = { ...view.own.zoom, [name]: shares.map(share.back) };
  changed();
}

// ---------------------------------------------------------------- controls

/** Lets the controls of a figure act: axes, files, and its slider. */
function controls(view, root, bar, slider) {
  const { data: { steps, title, surfaces }, figure } = view;
  slider.hidden = !steps[1];
  bar.ariaLabel += title;
  const [heights] = bar.children;
  heights.hidden = !surfaces;
  const acts = {
    heights() { view.own.solid = !view.own.solid; changed(); },
    reset: () => unzoom(view),
    alone() {
      // Where a page may not fill the screen, the figure fills the page.
      if (!figure.classList.toggle('alone')) leaveScreen();
      else figure.requestFullscreen?.().catch(() => {});
      view.draw();
    },
  };
  for (const one of bar.querySelectorAll('button')) {
    one.onclick = acts[one.value] || (() => save(view, one.value));
  }
  bind(root, () => view.own, view.updates);
  const range = slider.querySelector('input');
  range.max = steps.length - 1;
  view.updates.push(() => {
    heights.ariaPressed = view.own.solid;
    told(range, view.own.frame < 0 ? 'as drawn'
      : `step ${steps[view.own.frame]}`);
  });
}

const leaveScreen = () =>
  document.fullscreenElement && document.exitFullscreen();

/** Returns a button that shows and hides what a key is of. */
function legendOf(view, { index, label, run }) {
  const sample = svg('svg', { viewBox: '0 0 34 12' });
  view.updates.push(() => {
    sample.replaceChildren(sampleOf(view.look(index)));
    press.ariaPressed = run ? isShown(label) : !view.own.hidden.includes(index);
  });
  const press = button(() => {
    if (run) state.runs = without(state.runs, label);
    else view.own.hidden = without(view.own.hidden, index);
    changed();
  }, sample, label);
  return press;
}

/** Returns a short line that looks as those of a run. */
function sampleOf(look) {
  const marks = svg('g', { fill: 'none' });
  add({ marks }, 'path', { d: 'M1 6H33', ...stroke(look, 1.8, 1, look.dash) });
  if (look.marker) markers({ marks }, look.marker, [[17, 6]], look);
  return marks;
}

/** Returns a list without what is in it, or with what is not. */
const without = (list, one) => list.includes(one)
  ? list.filter((of) => of !== one) : [...list, one];

// ---------------------------------------------------------------- files

/** Saves what is shown of a figure. */
async function save(view, kind) {
  if (kind === 'CSV') {
    const rows = csvOf(view).map((row) => row.map(quoted).join(','));
    const text = `${rows.join('\n')}\n`;
    deliver(new Blob([text], { type: 'text/csv' }), view, kind);
    return;
  }
  const picture = pictureOf(view);
  const text = new XMLSerializer().serializeToString(picture);
  const blob = new Blob([text], { type: 'image/svg+xml' });
  if (kind === 'SVG') { deliver(blob, view, kind); return; }
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  await image.decode();
  const canvas = html('canvas', {
    width: 2 * image.width, height: 2 * image.height });
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((png) => deliver(png, view, kind));
}

function deliver(blob, view, kind) {
  html('a', { href: URL.createObjectURL(blob),
    download: `${view.name}.${kind.toLowerCase()}` }).click();
}

/** Returns a figure as a picture of its own, on white, with its legend. */
function pictureOf(view) {
  const picture = view.ink.cloneNode(true);
  const box = view.ink.viewBox.baseVal;
  let { height } = box;
  view.stage.querySelectorAll('canvas').forEach((one) => {
    const { left, top, width, height: tall } = one.style;
    picture.append(svg('image', { href: one.toDataURL(), x: left, y: top,
      width, height: tall }));
  });
  for (const { index, label, run } of view.data.keys) {
    if (run ? !isShown(label) : view.own.hidden.includes(index)) continue;
    picture.append(svg('g', {
      transform: at(20, height + 6), fill: INK },
    sampleOf(view.look(index)), svg('text', { x: 44, y: 10 }, label)));
    height += 18;
  }
  height += 8;
  picture.prepend(byId('hatch').cloneNode(true),
    svg('rect', { width: box.width, height, fill: WHITE }));
  return build(picture, { color: BLACK, height,
    viewBox: `0 0 ${box.width} ${height}` }, []);
}

/** Returns a header and rows of what is shown. */
function csvOf(view) {
  const rows = [['run', 'seed', 'panel', 'key', 'quantity', 'axis', 'x', 'y',
    'value']];
  for (const { panel, x, shapes } of view.plots) {
    for (const [mark, { seeds, edges, times }] of shapes) {
      const key = view.keys.get(mark.key);
      const tell = (seed, quantity, at, y, value) => {
        if (at >= x.low && at <= x.high) rows.push([
          view.run(mark, panel), seed, panel.about,
          key?.run === false ? key.label : '', quantity, panel.x.name,
          panel.x.names[at - 1] ?? at, panel.y.names[y - 1] ?? y, value]);
      };
      const lines = seeds ? [
        ...['mean', 'low', 'high'].map((kind) =>
          [kind, edges[0]?.x, edges.map((edge) => edge[kind])]),
        ...seeds.map((of) => [of.seed, of.x, [of.y, of.high].filter(Boolean)]),
      ] : [];
      for (const [seed, places, ends] of lines) {
        ends.forEach((line, end) => line?.forEach((value, place) => tell(seed,
          mark.quantity + (ends[1] ? ['_min', '_max'][end] : ''),
          places[place] * times, '', value)));
      }
      const { kind, at_x, at_y, values = [] } = mark;
      values.forEach((line, row) => line.forEach((value, column) => {
        const [x, y] = kind === 'cells' ? [column, row] : [row, column];
        tell(mark.seed, mark.quantity, at_x[x], at_y[y], value);
      }));
    }
  }
  return rows;
}

/** Returns a cell of a CSV that no spreadsheet takes for a formula. */
function quoted(cell) {
  const text = String(cell ?? 'nan');
  const isFormula = typeof cell === 'string' && '=+@-'.includes(text[0]);
  const whole = isFormula ? `'${text}` : text;
  return `"${whole.replaceAll('"', '""')}"`;
}

// ---------------------------------------------------------------- page

/** Returns the controls of all figures. */
function tools() {
  const root = copy('tools');
  const find = (name) => root.querySelector(`[name=${name}]`);
  const option = (value) => html('option', {}, value);
  find('unit').append(...units.map(option));
  for (const name of ['by', 'split']) {
    find(name).append(...[...groupsOf.keys()].map(option));
    find(name).parentElement.hidden = !groups.length;
  }
  const seeds = [...new Set(runs.flatMap((fact) => fact.seeds))];
  const group = root.querySelector('span');
  group.hidden = seeds.length < 2;
  for (const seed of seeds) {
    const press = button(() => {
      state.seeds = without(state.seeds, seed);
      changed();
    }, `Seed ${seed}`);
    updates.push(() => { press.ariaPressed = !state.seeds.includes(seed); });
    group.append(press);
  }
  bind(root, () => state, updates);
  updates.push(() => told(find('smooth'), state.smooth
    ? `mean of ${state.smooth}` : 'as drawn'));
  root.lastElementChild.onclick = () => {
    Object.assign(state, { filter: '', runs: [], seeds: [] });
    changed();
  };
  rove(group);
  return root;
}

/** Makes the columns of a table buttons that sort it. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent) return;
    const press = button(() => {
      const isUp = head.ariaSort !== 'ascending';
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = isUp ? 'ascending' : 'descending';
      const value = ({ cells }) =>
        cells[column]?.dataset.value ?? cells[column]?.textContent ?? '';
      const order = (a, b) => a - b || a.localeCompare(b);
      const [body] = table.tBodies;
      body.append(...[...body.rows].sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        // What has no value is the last either way.
        return !a - !b || (isUp ? order(a, b) : order(b, a));
      }));
    });
    press.append(...head.childNodes);
    head.append(press);
  });
}

document.querySelectorAll('#summary table').forEach(sortable);
for (const block of document.querySelectorAll('[data-figure]')) {
  views.push(new View(block));
}
if (views.length) byId('figures').after(tools());
readAddress();
addEventListener('fullscreenchange', ({ target }) => {
  if (!document.fullscreenElement) target.classList.remove('alone');
});
addEventListener('hashchange', () => {
  readAddress();
  changed();
});
changed();
