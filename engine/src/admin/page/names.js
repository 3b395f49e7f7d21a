// Who is who: what accounts, instances, tiers and books are called, kept a little while.

import { get } from "./api.js";
import { natural } from "./format.js";

/** Text of a row for what it has no name for. */
const bare = (number) => (number === null || number === undefined ? "–" : String(number));

export class Names {
  constructor() {
    [this.accounts, this.instances, this.tiers, this.read] = [[], [], [], 0];
    this.#index();
  }

  /** Reads them anew if they are older than `age` milliseconds. */
  async refresh(age) {
    if (Date.now() - this.read < age) return;
    const all = await Promise.all(["accounts", "instances", "tiers"].map((path) => get(path)));
    [this.accounts, this.instances, this.tiers] = all;
    this.read = Date.now();
    this.#index();
  }

  #index() {
    this.byAccount = new Map(this.accounts.map((row) => [row.account, row]));
    this.byInstance = new Map(this.instances.map((row) => [row.instance, row]));
    this.byTier = new Map(this.tiers.map((row) => [row.tier, row]));
    this.byBook = new Map(this.tiers.map((row) => [row.book, row]));
    this.sizes = new Map(this.tiers.map((row) => [`${row.tier}/${row.resource}`, row.vru_size]));
  }

  account = (number) => this.byAccount.get(number)?.name ?? bare(number);
  instance = (number) => this.byInstance.get(number)?.name ?? bare(number);
  tier = (number) => this.byTier.get(number)?.name ?? bare(number);

  book(number) {
    const row = this.byBook.get(number);
    return row ? `${row.name} ${row.resource}` : bare(number);
  }

  /** VRUs of a tier's resource, in what those are. */
  vrus = (tier, resource, vru) => natural(resource, vru, this.sizes.get(`${tier}/${resource}`));

  /** VRUs of an instance's resource. */
  ofInstance = (instance, resource, vru) => this.vrus(this.byInstance.get(instance)?.tier, resource, vru);
}
