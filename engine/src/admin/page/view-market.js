// Books: what each trades at, and of one its depth, its prices over time and its newest trades.

import { Chart } from "./chart.js";
import { choice, el, part, say } from "./dom.js";
import { count, milliticks, moment, ticks } from "./format.js";
import { Table } from "./table.js";

export const id = "market";
export const title = "Market";

/** Seconds of a bar, its name, and how many are shown. */
const WIDTHS = [[1, "seconds", 300], [60, "minutes", 180], [3600, "hours", 168]];

/** When the first bar that is shown begins, milliseconds. */
const sinceOf = ({ width: [seconds, , bars] }) => Date.now() - seconds * bars * 1000;

function booksTable(names, state, chose) {
  const price = (label, key) => ({ label, number: true, value: (row) => row[key] || null, text: (row) => ticks(row[key]) });
  const mean = (label, key) => ({ label, number: true, value: (row) => row[key] || null, text: (row) => milliticks(row[key]) });
  const sum = (label, key) => ({ label, number: true, value: (row) => row[key], text: (row) => count(row[key]) });
  return new Table({
    caption: "Books",
    key: (row) => row.book,
    page: 12,
    chose,
    chosen: () => state.book,
    columns: [
      { label: "Book", text: (row) => names.book(row.book), value: (row) => row.book },
      price("Last", "last_ticks"), price("Bid", "bid_ticks"), price("Ask", "ask_ticks"),
      mean("Average bid", "average_bid_milliticks"), mean("Average ask", "average_ask_milliticks"),
      sum("Wanted", "bid_credits"), sum("Offered", "ask_credits"),
      mean("Day's VWAP", "day_vwap_milliticks"), sum("Day's volume", "day_volume_credits"),
      sum("Trades", "trades"),
    ],
  });
}

function depthTable(side, label) {
  let most = 1;
  const table = new Table({
    caption: label,
    key: (row) => row.price_ticks,
    filter: false,
    empty: side === "bid" ? "nobody buys" : "nobody sells",
    columns: [
      { label: side === "bid" ? "Bid" : "Ask", number: true, value: (row) => row.price_ticks, text: (row) => count(row.price_ticks) },
      { label: "Credits", number: true, value: (row) => row.quantity_credits, text: (row) => count(row.quantity_credits),
        fill: (cell, row) => {
          say(cell, count(row.quantity_credits));
          cell.style.setProperty("--share", `${((row.quantity_credits / most) * 100).toFixed(1)}%`);
        } },
    ],
  });
  table.element.classList.add("depth", side);
  return { element: table.element, update: (rows, whole) => { most = whole; table.update(rows); } };
}

function tradesTable(names) {
  return new Table({
    caption: "Newest trades",
    key: (row) => row.trade,
    page: 15,
    columns: [
      { label: "Trade", number: true, value: (row) => row.trade, text: (row) => count(row.trade) },
      { label: "Time", value: (row) => row.time, text: (row) => moment(row.time) },
      { label: "Seller", text: (row) => names.instance(row.seller) },
      { label: "Buyer", text: (row) => names.instance(row.buyer) },
      { label: "Credits", number: true, value: (row) => row.quantity_credits, text: (row) => count(row.quantity_credits) },
      { label: "Price", number: true, value: (row) => row.price_ticks, text: (row) => ticks(row.price_ticks) },
      { label: "Taker", text: (row) => row.taker_side },
      { label: "State", text: (row) => (row.reversed ? "reversed" : "") },
    ],
  });
}

function priceChart(state) {
  return new Chart({
    label: "Prices",
    span: () => [sinceOf(state) / 1000, Date.now() / 1000],
    scales: { price: { label: "ticks", text: count, range: around }, volume: { label: "credits", text: count, range: (_plot, _low, high) => [0, Math.max(1, high) * 4] } },
    series: [
      { label: "high", colour: "quiet", unseen: true },
      { label: "low", colour: "quiet", unseen: true },
      { label: "close", colour: "series", stepped: true, points: (plot) => plot.data[0].length < 40 },
      { label: "credits traded", colour: "volume", scale: "volume", bars: true, width: 0 },
    ],
    ranges: [2, 1],
  });
}

/** A range of whole ticks around prices, so that one price alone is not on an edge. */
function around(_plot, low, high) {
  if (low === null) return [0, 1];
  const room = Math.max(1, Math.ceil((high - low) / 10));
  return [Math.max(0, low - room), high + room];
}

export function create({ names, refresh }) {
  const state = { book: 0, width: WIDTHS[0] };
  const books = booksTable(names, state, (row) => { state.book = row.book; refresh(); });
  const [bids, asks] = [depthTable("bid", "Bids"), depthTable("ask", "Asks")];
  const trades = tradesTable(names);
  const chart = priceChart(state);
  const heading = el("p", { class: "quiet" });
  const widths = choice("Bars of", WIDTHS.map((width) => [width, width[1]]), state.width, (width) => { state.width = width; refresh(); });
  const depth = el("div", { class: "two" }, bids.element, asks.element);
  return {
    parts: [
      part("Books", books.element),
      el("div", { class: "beside" }, part("Prices", heading, widths, chart.element), part("Depth", depth)),
      part("Newest trades", trades.element),
    ],
    sources() {
      const [seconds] = state.width;
      return {
        market: "market",
        books: `books?book=${state.book}`,
        bars: `bars?book=${state.book}&width_s=${seconds}&from_ms=${sinceOf(state)}`,
        trades: `trades?book=${state.book}&limit=100`,
      };
    },
    update(data) {
      books.update(data.market ?? []);
      const book = data.books?.[0];
      if (book) {
        const most = Math.max(1, ...book.bids.map((row) => row.quantity_credits), ...book.asks.map((row) => row.quantity_credits));
        bids.update(book.bids, most);
        asks.update(book.asks, most);
        const auction = book.indicative_ticks ? `; an auction now: ${count(book.indicative_volume_credits)} credits at ${ticks(book.indicative_ticks)}` : "";
        say(heading, `${names.book(state.book)}, ${book.phase}${auction}`);
      }
      trades.update([...(data.trades ?? [])].sort((a, b) => Number(b.trade - a.trade)));
      const bars = data.bars ?? [];
      const last = bars.at(-1);
      const summary = last ? `Last ${last.close_ticks} ticks, ${bars.length} bars` : "no trades";
      chart.name(`${names.book(state.book)}: price by ${state.width[1]}`, summary);
      chart.update([
        bars.map((row) => Date.parse(row.start) / 1000), bars.map((row) => row.high_ticks), bars.map((row) => row.low_ticks),
        bars.map((row) => row.close_ticks), bars.map((row) => row.volume_credits),
      ]);
    },
    end: () => chart.end(),
  };
}
