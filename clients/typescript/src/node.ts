import { createGrpcTransport } from "@connectrpc/connect-node";
import { bearer, run } from "./harvester.js";

const { CONTEXTWORKER_TARGET: target, CONTEXTWORKER_TOKEN: token } = process.env;
const transport = createGrpcTransport({
  baseUrl: `http://${target}`,
  interceptors: token ? [bearer(token)] : [],
});
await run(transport, console.log);
