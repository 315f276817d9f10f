//! A client in Rust: client SOCKET VM

use ingle::exec_request::Message as Say;
use ingle::exec_response::Message as Said;
use ingle::guest_service_client::GuestServiceClient;
use ingle::vm_service_client::VmServiceClient;
use ingle::write_file_request::Message as Write;
use ingle::{ExecRequest, ExecStart, ExecStdinEof, GetVmRequest, ListVmsRequest};
use ingle::{UploadEnd, WriteFileRequest, WriteFileStart};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

mod ingle {
    tonic::include_proto!("ingle.v1");
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn say(message: Say) -> ExecRequest {
    ExecRequest { message: Some(message) }
}

fn command(vm: &str, argv: &[&str], open_stdin: bool) -> ExecRequest {
    let argv = argv.iter().map(ToString::to_string).collect();
    say(Say::Start(ExecStart { vm: vm.into(), argv, open_stdin, ..Default::default() }))
}

async fn exec(guest: &mut GuestServiceClient<Channel>, vm: &str) -> Result<()> {
    let (requests, sent) = mpsc::channel(4);
    let response = guest.exec(ReceiverStream::new(sent)).await?; // before anything was said
    println!("op_id {}", response.metadata().get("ingle-op-id").ok_or("no op_id")?.to_str()?);
    requests.send(command(vm, &["tr", "a-z", "A-Z"], true)).await?;
    requests.send(say(Say::StdinData("hello".into()))).await?;
    requests.send(say(Say::StdinEof(ExecStdinEof {}))).await?;
    let (mut responses, mut said) = (response.into_inner(), Vec::new());
    while let Some(response) = responses.message().await? {
        match response.message {
            Some(Said::StdoutData(data)) => said.extend(data),
            Some(Said::Exited(exited)) => println!("exec {} {}", String::from_utf8(said.clone())?, exited.exit_code),
            _ => {}
        }
    }
    Ok(())
}

async fn upload(guest: &mut GuestServiceClient<Channel>, vm: &str) -> Result<()> {
    let start = WriteFileStart { vm: vm.into(), path: "/tmp/rust".into(), ..Default::default() };
    let messages = [Write::Start(start), Write::Data("rust".into()), Write::End(UploadEnd {})];
    let requests = messages.map(|message| WriteFileRequest { message: Some(message) });
    let answer = guest.write_file(tokio_stream::iter(requests)).await?.into_inner();
    println!("upload {}", answer.file.ok_or("no file")?.size_bytes);
    Ok(())
}

async fn fail(vms: &mut VmServiceClient<Channel>, name: &str, reference: String) -> Result<()> {
    let status: Status = vms.get_vm(GetVmRequest { vm: reference }).await.err().ok_or("no error")?;
    let info = status.get_details_error_info().ok_or("no ErrorInfo")?;
    let op_id = status.metadata().get("ingle-op-id").ok_or("no op_id")?.to_str()?;
    println!("{name} {} {} {} {}", upper(status.code()), info.domain, info.reason, info.metadata["op_id"] == op_id);
    Ok(())
}

async fn cancel(guest: &mut GuestServiceClient<Channel>, vm: &str) -> Result<()> {
    let (requests, sent) = mpsc::channel(1);
    requests.send(command(vm, &["sleep", "98765"], false)).await?;
    let mut responses = guest.exec(ReceiverStream::new(sent)).await?.into_inner();
    match responses.message().await?.and_then(|response| response.message) {
        Some(Said::Started(_)) => println!("cancelled CANCELLED"), // dropping the call is how it is cancelled
        _ => return Err("it did not start".into()),
    }
    Ok(())
}

/// A code's name as other languages write it.
fn upper(code: Code) -> &'static str {
    match code {
        Code::NotFound => "NOT_FOUND",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        _ => "another code",
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let (socket, vm) = (&arguments[1], &arguments[2]);
    let channel = Endpoint::try_from(format!("unix:{socket}"))?.connect().await?;
    let (mut guest, mut vms) = (GuestServiceClient::new(channel.clone()), VmServiceClient::new(channel));
    exec(&mut guest, vm).await?;
    upload(&mut guest, vm).await?;
    let found = vms.list_vms(ListVmsRequest::default()).await?.into_inner().vms;
    println!("list {}", found.iter().any(|each| each.id == *vm));
    fail(&mut vms, "error", "no-such-vm".into()).await?;
    fail(&mut vms, "long", "x".repeat(100_000)).await?;
    cancel(&mut guest, vm).await
}
