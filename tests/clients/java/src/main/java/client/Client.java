package client;

import com.google.protobuf.ByteString;
import com.google.rpc.ErrorInfo;
import dev.ingle.v1.ExecRequest;
import dev.ingle.v1.ExecResponse;
import dev.ingle.v1.ExecStart;
import dev.ingle.v1.ExecStdinEof;
import dev.ingle.v1.GetVmRequest;
import dev.ingle.v1.GuestServiceGrpc;
import dev.ingle.v1.ListVmsRequest;
import dev.ingle.v1.UploadEnd;
import dev.ingle.v1.VmServiceGrpc;
import dev.ingle.v1.WriteFileRequest;
import dev.ingle.v1.WriteFileResponse;
import dev.ingle.v1.WriteFileStart;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicReference;

/** A client in Java: mvn exec:java -Dexec.args="SOCKET VM". */
public final class Client {
  private static final Metadata.Key<String> OP_ID = Metadata.Key.of("ingle-op-id", Metadata.ASCII_STRING_MARSHALLER);

  private final String vm;
  private final GuestServiceGrpc.GuestServiceStub guest;
  private final VmServiceGrpc.VmServiceBlockingStub vms;

  private Client(ManagedChannel channel, String vm) {
    this.vm = vm;
    guest = GuestServiceGrpc.newStub(channel);
    vms = VmServiceGrpc.newBlockingStub(channel);
  }

  public static void main(String[] arguments) throws Exception {
    EpollEventLoopGroup loop = new EpollEventLoopGroup();
    ManagedChannel channel =
        NettyChannelBuilder.forAddress(new DomainSocketAddress(arguments[0]))
            .eventLoopGroup(loop)
            .channelType(EpollDomainSocketChannel.class)
            .usePlaintext()
            .build();
    Client client = new Client(channel, arguments[1]);
    client.exec();
    client.upload();
    client.list();
    client.fail("error", "no-such-vm");
    client.fail("long", "x".repeat(100_000));
    client.cancel();
    channel.shutdownNow();
    loop.shutdownGracefully();
  }

  private void exec() throws Exception {
    AtomicReference<Metadata> headers = new AtomicReference<>();
    Responses<ExecRequest, ExecResponse> responses = new Responses<>();
    StreamObserver<ExecRequest> requests =
        guest.withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(headers, new AtomicReference<>())).exec(responses);
    while (headers.get() == null) { // they come before anything was said
      Thread.sleep(10);
    }
    System.out.println("op_id " + headers.get().get(OP_ID));
    ExecStart start = ExecStart.newBuilder().setVm(vm).addAllArgv(List.of("tr", "a-z", "A-Z")).setOpenStdin(true).build();
    requests.onNext(ExecRequest.newBuilder().setStart(start).build());
    requests.onNext(ExecRequest.newBuilder().setStdinData(ByteString.copyFromUtf8("hello")).build());
    requests.onNext(ExecRequest.newBuilder().setStdinEof(ExecStdinEof.getDefaultInstance()).build());
    ByteString said = ByteString.EMPTY;
    while (true) {
      ExecResponse response = responses.received.take();
      said = said.concat(response.getStdoutData());
      if (response.hasExited()) {
        System.out.println("exec " + said.toStringUtf8() + " " + response.getExited().getExitCode());
        return;
      }
    }
  }

  private void upload() throws Exception {
    Responses<WriteFileRequest, WriteFileResponse> responses = new Responses<>();
    StreamObserver<WriteFileRequest> requests = guest.writeFile(responses);
    WriteFileStart start = WriteFileStart.newBuilder().setVm(vm).setPath("/tmp/java").build();
    requests.onNext(WriteFileRequest.newBuilder().setStart(start).build());
    requests.onNext(WriteFileRequest.newBuilder().setData(ByteString.copyFromUtf8("java")).build());
    requests.onNext(WriteFileRequest.newBuilder().setEnd(UploadEnd.getDefaultInstance()).build());
    requests.onCompleted();
    System.out.println("upload " + responses.received.take().getFile().getSizeBytes());
  }

  private void list() {
    boolean found =
        vms.listVms(ListVmsRequest.getDefaultInstance()).getVmsList().stream().anyMatch(each -> each.getId().equals(vm));
    System.out.println("list " + found);
  }

  private void fail(String name, String reference) throws Exception {
    AtomicReference<Metadata> headers = new AtomicReference<>();
    try {
      vms.withInterceptors(MetadataUtils.newCaptureMetadataInterceptor(headers, new AtomicReference<>()))
          .getVm(GetVmRequest.newBuilder().setVm(reference).build());
    } catch (StatusRuntimeException error) {
      ErrorInfo info = StatusProto.fromThrowable(error).getDetails(0).unpack(ErrorInfo.class);
      boolean same = headers.get().get(OP_ID).equals(info.getMetadataOrThrow("op_id"));
      Status.Code code = error.getStatus().getCode();
      System.out.println(String.join(" ", name, code.name(), info.getDomain(), info.getReason(), "" + same));
    }
  }

  private void cancel() throws Exception {
    Responses<ExecRequest, ExecResponse> responses = new Responses<>();
    StreamObserver<ExecRequest> requests = guest.exec(responses);
    ExecStart start = ExecStart.newBuilder().setVm(vm).addAllArgv(List.of("sleep", "98765")).build();
    requests.onNext(ExecRequest.newBuilder().setStart(start).build());
    if (!responses.received.take().hasStarted()) {
      throw new IllegalStateException("it did not start");
    }
    responses.call.cancel("enough", null);
    System.out.println("cancelled " + responses.ended.get().name());
  }

  /** What a call answers, and how it ends. */
  private static final class Responses<Q, A> implements ClientResponseObserver<Q, A> {
    final BlockingQueue<A> received = new LinkedBlockingQueue<>();
    final CompletableFuture<Status.Code> ended = new CompletableFuture<>();
    ClientCallStreamObserver<Q> call;

    @Override
    public void beforeStart(ClientCallStreamObserver<Q> stream) {
      call = stream;
    }

    @Override
    public void onNext(A response) {
      received.add(response);
    }

    @Override
    public void onError(Throwable error) {
      ended.complete(Status.fromThrowable(error).getCode());
    }

    @Override
    public void onCompleted() {
      ended.complete(Status.Code.OK);
    }
  }
}
