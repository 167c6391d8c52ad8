// Poses on a canvas: left limbs orange, right limbs blue, as `rtmpose predict --draw` paints them.

const LEFT = "#ff8c1e", RIGHT = "#288cff", MIDDLE = "#5adc78", OUTLINE = "#141418", PAPER = "#fafafa";

function side(name) {
  return name.startsWith("left") ? LEFT : name.startsWith("right") ? RIGHT : MIDDLE;
}

// A limb from a middle point takes the side of the other; one across the body is in the middle.
function limbColour(a, b) {
  if (a === b || b === MIDDLE) return a;
  return a === MIDDLE ? b : MIDDLE;
}

// Draw people whose points are at least so `sure`. `zoom` are canvas pixels per pixel of the picture.
export function drawPeople(context, people, model, sure, zoom) {
  const sides = model.names.map(side);
  for (const person of people) drawPerson(context, person, model.limbs, sides, sure, zoom);
}

function drawPerson(context, person, limbs, sides, sure, zoom) {
  const points = person.keypoints.map((point, k) =>
    point && person.confidence[k] >= sure ? point.map((side) => (side + 0.5) * zoom) : null);
  const shown = points.filter(Boolean);
  if (!shown.length) return;
  const extent = Math.max(...[0, 1].map((axis) => {
    const along = shown.map((point) => point[axis]);
    return Math.max(...along) - Math.min(...along);
  }));
  const width = Math.min(Math.max(extent / 55, 1.5), 6);
  context.lineCap = "round";
  for (const [extra, outlined] of [[1.5, true], [0, false]]) {
    for (const [a, b] of limbs) {
      if (!points[a] || !points[b]) continue;
      context.strokeStyle = outlined ? OUTLINE : limbColour(sides[a], sides[b]);
      context.lineWidth = width + 2 * extra;
      context.beginPath();
      context.moveTo(...points[a]);
      context.lineTo(...points[b]);
      context.stroke();
    }
    points.forEach((point, k) => point && dot(context, point, outlined ? OUTLINE : sides[k], width * 1.2 + extra));
  }
  for (const point of shown) dot(context, point, PAPER, width * 0.55);
  if (person.identity !== null) label(context, person, zoom);
}

function dot(context, point, colour, radius) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(point[0], point[1], radius, 0, 2 * Math.PI);
  context.fill();
}

function label(context, person, zoom) {
  const text = `#${person.identity}`, x = Math.max(person.box[0] * zoom, 2), y = Math.max(person.box[1] * zoom, 18);
  context.font = "600 14px system-ui, sans-serif";
  context.fillStyle = OUTLINE;
  context.fillRect(x, y - 16, context.measureText(text).width + 8, 18);
  context.fillStyle = PAPER;
  context.fillText(text, x + 4, y - 3);
}
