/** The state machine of a connection, as one table. Pure: `connection.ts` carries out the actions. */

export type State = "closed" | "connecting" | "connected" | "suspended" | "failed";

export type Input =
  | "connect" // the application wants a connection
  | "close" // the application closes it
  | "welcomed" // `welcome` arrived
  | "lost" // the transport ended, and may be opened again
  | "refused" // the transport ended, and must not be opened again
  | "due" // the backoff is over
  | "wake" // the network is back, the page is visible again, the machine woke
  | "upgrade" // on the fallback: time to try the preferred transport
  | "upgraded" // it works
  | "replaced"; // the transport ended while the preferred one was being tried, perhaps because of it

export type Action =
  | "open" // open a transport
  | "drop" // close the transport
  | "leave" // the same, and the server counts the user as gone
  | "wait" // schedule `due`
  | "cancel" // unschedule it
  | "probe" // ask the server for an answer
  | "try" // open the preferred transport beside the current one
  | "switch"; // continue over it

interface Step {
  readonly next: State;
  readonly actions: readonly Action[];
}

const step = (next: State, ...actions: Action[]): Step => ({ next, actions });

/** The step for each state and input. Inputs that are not listed change nothing. */
export const TABLE: Readonly<Record<State, Readonly<Partial<Record<Input, Step>>>>> = {
  closed: {
    connect: step("connecting", "open"),
  },
  connecting: {
    welcomed: step("connected"),
    lost: step("suspended", "drop", "wait"),
    refused: step("failed", "drop"),
    close: step("closed", "leave"),
  },
  connected: {
    lost: step("suspended", "drop", "wait"),
    refused: step("failed", "drop"),
    wake: step("connected", "probe"),
    upgrade: step("connected", "try"),
    upgraded: step("connected", "switch"),
    replaced: step("connecting"),
    close: step("closed", "leave"),
  },
  suspended: {
    due: step("connecting", "open"),
    wake: step("connecting", "cancel", "open"),
    connect: step("connecting", "cancel", "open"),
    close: step("closed", "cancel"),
  },
  failed: {
    connect: step("connecting", "open"),
    close: step("closed"),
  },
};

export function advance(state: State, input: Input): Step | undefined {
  return TABLE[state][input];
}
