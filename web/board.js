// A grid of widgets on the screen: a project's, or that of a tile's page. In play mode it is alive; the editor builds on it.

import { go } from "./app.js";
import { h, toast } from "./dom.js";
import { arrange } from "./layout.js";
import { t } from "./i18n.js";
import { explain, session } from "./session.js";
import { View } from "./view.js";

let told = 0;
function tell(text) {
  if (Date.now() - told < 3000) return;
  told = Date.now();
  toast(text, { error: true });
}

/** What widgets may use of the page around them. */
export function environment(project, { editing = false, device, board } = {}) {
  return {
    project, editing, device, guest: session.guest, model: session.model,
    get link() { return session.link; },
    explain,
    explainPaused: () => tell(t("The project is paused: start it first.")),
    explainLost: () => tell(t("No connection to the server.")),
    tab: () => board.tab,
    showTab: (index) => board.showTab(index),
    open: (what) => { if (!editing && !session.guest) go(`project/${project.id}/${what}`); },
    openTile: (widget, tile) => { if (!editing) go(`project/${project.id}/tile/${widget.id}/${tile.deviceId}`); },
    openChart: (widget) => { if (!editing) go(`project/${project.id}/chart/${widget.id}${device === undefined ? "" : `/${device}`}`); },
  };
}

const openTabs = new Map();        // project or template -> the tab last shown, for this visit

export class Board {
  constructor(project, { place = null, device, editing = false } = {}) {
    Object.assign(this, { project, place, device, editing, views: new Map() });
    this.env = environment(project, { editing, device, board: this });
    this.tabKey = `${project.id}/${place?.template?.id ?? ""}`;
    this.tab = openTabs.get(this.tabKey) || 0;
    this.grid = h(".grid");
    this.el = h(".board", { "data-theme": theme(project) }, this.grid);
    this.draw();
  }

  get widgets() { return this.project.container(this.place); }
  get tabs() { return this.widgets.find((w) => w.type === "TABS"); }

  /** The widgets on the tab that is shown; Tabs itself is on all. */
  visible() {
    const { tabs } = this;
    if (!tabs) return this.widgets;
    if (this.tab >= (tabs.tabs?.length || 1)) this.tab = 0;
    return this.widgets.filter((w) => w.type === "TABS" || w.tabId === -1 || (w.tabId || 0) === this.tab);
  }

  showTab(index) {
    this.tab = index;
    openTabs.set(this.tabKey, index);
    this.draw();
    this.onchange?.();
  }

  draw() {
    this.el.dataset.theme = theme(this.project);
    this.el.classList.toggle("solid", Boolean(this.project.document.widgetBackgroundOn));
    const { columns, places } = arrange(this.visible());
    this.columns = columns;
    this.places = places;
    this.grid.style.setProperty("--columns", String(columns));
    const kept = new Map();
    for (const place of places) {
      const instance = this.project.instance(place.widget, this.device, this.place?.tiles);
      let view = this.views.get(place.widget);
      if (!view || view.instance !== instance) {
        view?.remove();
        view = new View(instance, this.env);
        this.ondraw?.(view);
      } else view.update();
      kept.set(place.widget, view);
      this.put(view, place);
    }
    for (const [widget, view] of this.views) if (!kept.has(widget)) view.remove();
    this.views = kept;
    const order = [...places].sort((a, b) => a.y - b.y || a.x - b.x).map((place) => kept.get(place.widget).el);
    order.forEach((el, i) => { if (this.grid.children[i] !== el) this.grid.insertBefore(el, this.grid.children[i] || null); });
    this.rows = Math.max(0, ...places.map((place) => place.y + place.height));
    this.grid.style.setProperty("--rows", String(this.rows));
  }

  put(view, place) {
    view.el.style.gridColumn = `${place.x + 1} / span ${place.width}`;
    view.el.style.gridRow = `${place.y + 1} / span ${place.height}`;
    view.el.dataset.rows = String(Math.min(3, place.height));
    view.el.dataset.columns = String(Math.min(3, place.width));
    view.place = place;
  }

  remove() {
    for (const view of this.views.values()) view.remove();
    this.views.clear();
  }
}

export const theme = (project) => (["BlynkLight", "AppTheme"].includes(project.document.theme) ? "light" : project.document.theme === "SparkFun" ? "spark" : "dark");
