import { createConnectTransport } from "@connectrpc/connect-web";
import { bearer, run } from "./harvester.js";

/** For a page: `harvest("http://localhost:50080", token, (line) => output.append(line, "\n"))`. */
export async function harvest(baseUrl: string, token: string, say: (line: string) => void): Promise<void> {
  await run(createConnectTransport({ baseUrl, interceptors: token ? [bearer(token)] : [] }), say);
}
