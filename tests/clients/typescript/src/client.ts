// A client in TypeScript: node out/client.js SOCKET VM

import { credentials, Metadata, ServiceError, status } from "@grpc/grpc-js";
import { once } from "node:events";

import { ErrorInfo } from "./gen/google/rpc/error_details";
import { Status } from "./gen/google/rpc/status";
import { ExecRequest, ExecResponse, GuestServiceClient, WriteFileRequest, WriteFileResponse } from "./gen/ingle/v1/guest";
import { ListVmsRequest, ListVmsResponse, VmServiceClient } from "./gen/ingle/v1/vm";

const [socket, vm] = process.argv.slice(2);

function errorInfo(error: ServiceError): ErrorInfo {
  const [details] = error.metadata.get("grpc-status-details-bin") as Buffer[];
  return ErrorInfo.decode(Status.decode(details).details[0].value);
}

async function exec(guest: GuestServiceClient): Promise<void> {
  const call = guest.exec();
  const [metadata] = (await once(call, "metadata")) as [Metadata]; // before anything was said
  console.log("op_id", metadata.get("ingle-op-id")[0]);
  call.write(ExecRequest.create({ start: { vm, argv: ["tr", "a-z", "A-Z"], openStdin: true } }));
  call.write(ExecRequest.create({ stdinData: Buffer.from("hello") }));
  call.write(ExecRequest.create({ stdinEof: {} }));
  let said = "";
  for await (const response of call as AsyncIterable<ExecResponse>) {
    said += Buffer.from(response.stdoutData ?? []).toString();
    if (response.exited) console.log("exec", said, response.exited.exitCode);
  }
}

async function upload(guest: GuestServiceClient): Promise<void> {
  const response = await new Promise<WriteFileResponse>((resolve, reject) => {
    const call = guest.writeFile((error, answer) => (error ? reject(error) : resolve(answer)));
    call.write(WriteFileRequest.create({ start: { vm, path: "/tmp/typescript" } }));
    call.write(WriteFileRequest.create({ data: Buffer.from("typescript") }));
    call.end(WriteFileRequest.create({ end: {} }));
  });
  console.log("upload", response.file?.sizeBytes);
}

async function list(vms: VmServiceClient): Promise<void> {
  const response = await new Promise<ListVmsResponse>((resolve, reject) =>
    vms.listVms(ListVmsRequest.create(), (error, answer) => (error ? reject(error) : resolve(answer))),
  );
  console.log("list", response.vms.some((each) => each.id === vm));
}

async function fail(vms: VmServiceClient, name: string, reference: string): Promise<void> {
  let opId: unknown;
  const error = await new Promise<ServiceError>((resolve, reject) => {
    const call = vms.getVm({ vm: reference }, (failed) => (failed ? resolve(failed) : reject(new Error("no error"))));
    call.on("metadata", (metadata: Metadata) => (opId = metadata.get("ingle-op-id")[0]));
  });
  const info = errorInfo(error);
  console.log(name, status[error.code], info.domain, info.reason, info.metadata["op_id"] === opId);
}

async function cancel(guest: GuestServiceClient): Promise<void> {
  const call = guest.exec();
  call.write(ExecRequest.create({ start: { vm, argv: ["sleep", "98765"] } }));
  await once(call, "data");
  const ended = once(call, "error");
  call.cancel();
  const [error] = (await ended) as [ServiceError];
  console.log("cancelled", status[error.code]);
}

async function main(): Promise<void> {
  const guest = new GuestServiceClient(`unix:${socket}`, credentials.createInsecure());
  const vms = new VmServiceClient(`unix:${socket}`, credentials.createInsecure());
  await exec(guest);
  await upload(guest);
  await list(vms);
  await fail(vms, "error", "no-such-vm");
  await fail(vms, "long", "x".repeat(100_000));
  await cancel(guest);
  guest.close();
  vms.close();
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
