// The grid of a project: whole cells, eight columns, as many rows as it takes. No DOM.

const COLUMNS = 8;

/** The cells of a widget; documents may say width or height 0. */
export function cells(w) {
	return {
		x: Math.max(0, w.x | 0),
		y: Math.max(0, w.y | 0),
		width: Math.max(1, w.width | 0),
		height: Math.max(1, w.height | 0),
	};
}

export function overlap(a, b) {
	return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

export const fits = (place, taken, columns = COLUMNS) =>
	place.x >= 0 &&
	place.y >= 0 &&
	place.width >= 1 &&
	place.height >= 1 &&
	place.x + place.width <= columns &&
	!taken.some((other) => overlap(place, other));

/** The first free place for a size, reading from top left, at or below row `from`. */
export function firstFree(width, height, taken, columns = COLUMNS, from = 0) {
	const size = Math.min(width, columns);
	for (let y = from; ; y++) {
		for (let x = 0; x + size <= columns; x++) {
			const place = { x, y, width: size, height };
			if (fits(place, taken, columns)) return place;
		}
	}
}

/**
 * Where each widget is drawn: where its document says. A project from elsewhere may put widgets on top of each other; the
 * later one is then drawn at the next free place below, and its document stays as it is. -> [{ widget, x, y, width, height }]
 */
export function arrange(widgets) {
	const columns = Math.max(COLUMNS, ...widgets.map((w) => cells(w).x + cells(w).width));
	const placed = [];
	const late = [];
	for (const widget of widgets) {
		const place = { ...cells(widget), widget };
		if (fits(place, placed, columns)) placed.push(place);
		else late.push(place);
	}
	for (const place of late) {
		Object.assign(place, firstFree(place.width, place.height, placed, columns, place.y));
		placed.push(place);
	}
	return { columns, places: placed };
}

/** Where widgets of the smallest id not in use go: ids are whole numbers from 1; selectors need 200000 and more. */
export function freeId(taken, from = 1) {
	const used = new Set(taken.map(Number));
	let id = from;
	while (used.has(id)) id++;
	return id;
}
