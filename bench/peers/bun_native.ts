// Bun's own publish/subscribe, in one process, without a bus: the figure to beat.
import { serve } from "./bun_server.ts";

serve(() => undefined);
