/** The life of a connection as one table. Pure: no socket, no timer; `connection.ts` carries out the actions. */

export type State = "closed" | "connecting" | "connected" | "suspended" | "failed";

export type Input =
  | "connect" // the application wants a connection
  | "close" // it wants none
  | "welcomed" // the server greeted
  | "lost" // the transport ended, and may be opened again
  | "refused" // the transport ended, and must not be opened again
  | "due" // the wait is over
  | "wake" // the network is back, the page is looked at again, the machine woke
  | "upgrade" // on the fallback: the better transport deserves another try
  | "upgraded" // it works
  | "replaced"; // the transport ended while the better one was being tried, which may be why

export type Action =
  | "open" // open a transport
  | "drop" // let go of the transport
  | "leave" // the same, telling the server that the user is gone
  | "wait" // schedule `due`
  | "cancel" // unschedule it
  | "probe" // ask for a sign of life, soon
  | "try" // open the better transport beside the one that works
  | "switch"; // go on over it

interface Step {
  readonly next: State;
  readonly actions: readonly Action[];
}

const step = (next: State, ...actions: Action[]): Step => ({ next, actions });

/** What each input does in each state. What is not listed changes nothing. */
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
