// The table of scenarios against real gateways, a real NATS and a real Redis.
import { afterAll, beforeAll, describe, it } from "vitest";
import { startFleet, type Fleet } from "../support/fleet.js";
import { Real, SECRET } from "../support/real.js";
import { rows } from "../support/scenario.js";

const SETTINGS = {
  open: { TIDINGS_HEARTBEAT_INTERVAL_MS: "2000" },
  application: {},
  tokens: { TIDINGS_AUTH: "jwt", TIDINGS_JWT_SECRETS: SECRET },
};

describe.each(Object.entries(SETTINGS))("%s", (server, settings) => {
  let fleet: Fleet;

  beforeAll(async () => {
    fleet = await startFleet(settings, ...(server === "application" ? [server] : []));
  });

  afterAll(() => (fleet as Fleet | undefined)?.end()); // undefined where it did not start

  const cases = rows("real")
    .filter((row) => (row.server ?? "open") === server)
    .flatMap((row) => (row.ways ?? ["json"]).map((way) => [`${row.name} (${way})`, row, way] as const));

  it.each(cases)(
    "%s",
    async (_, row, way) => {
      await new Real(fleet, way).run(row.steps);
    },
    120_000,
  );
});
