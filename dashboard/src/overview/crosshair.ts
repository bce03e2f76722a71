import uPlot from "uplot";

/** One crosshair over all charts: its position, and the charts that draw it. */
export class Crosshair {
  readonly #charts = new Set<uPlot>();
  readonly #watchers = new Set<() => void>();
  readonly sync = uPlot.sync("crosshair");
  #index: number | null = null;

  readonly get = (): number | null => this.#index;

  readonly subscribe = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };

  add(chart: uPlot): () => void {
    this.#charts.add(chart);
    return () => this.#charts.delete(chart);
  }

  /** A chart moved its cursor to a point, or lost it. All charts have the same points. */
  at(index: number | null): void {
    if (index === this.#index) return;
    this.#index = index;
    for (const watcher of [...this.#watchers]) watcher();
  }

  /** Moves all cursors by a number of points, for the keyboard. */
  step(by: number): void {
    const [first] = this.#charts;
    const last = (first?.data[0].length ?? 0) - 1;
    if (last < 0) return;
    this.#moveTo(Math.min(last, Math.max(0, (this.#index ?? last) + by)));
  }

  clear(): void {
    for (const chart of this.#charts) chart.setCursor({ left: -10, top: -10 });
    this.at(null);
  }

  /** Returns its time in seconds since 1970. */
  get time(): number | undefined {
    const [first] = this.#charts;
    return this.#index === null ? undefined : first?.data[0][this.#index];
  }

  #moveTo(index: number): void {
    for (const chart of this.#charts) {
      const time = chart.data[0][index];
      if (time !== undefined) chart.setCursor({ left: chart.valToPos(time, "x"), top: chart.over.clientHeight / 2 });
    }
    this.at(index);
  }
}
