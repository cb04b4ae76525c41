package com.example.harvester;

import com.contextunity.core.ContextUnit;
import com.contextunity.harvest.v1.HarvestRequest;
import com.contextunity.harvest.v1.HarvestResponse;
import com.contextunity.harvest.v1.HarvestServiceGrpc;
import com.contextunity.worker.StartWorkflowResult;
import com.contextunity.worker.TaskStatus;
import com.contextunity.worker.WatchTaskRequest;
import com.contextunity.worker.WorkerServiceGrpc;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Has a supplier's catalogue harvested by ContextWorker, first by the contract's own service, then by the envelope, and
 * says what came of it.
 */
public final class Harvester {
  private static final Metadata.Key<String> REQUEST_ID = key("contextunity-request-id");
  private static final Metadata.Key<String> WORKFLOW_ID = key("contextunity-workflow-id");
  private static final Metadata.Key<String> RUN_ID = key("contextunity-run-id");

  private Harvester() {}

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel =
        Grpc.newChannelBuilder(System.getenv("CONTEXTWORKER_TARGET"), InsecureChannelCredentials.create()).build();
    try {
      Channel calls = withToken(channel, System.getenv("CONTEXTWORKER_TOKEN"));
      harvest(calls);
      refused(calls);
      watch(calls);
    } finally {
      channel.shutdownNow().awaitTermination(10, TimeUnit.SECONDS);
    }
  }

  /** Shows a token with each call. */
  private static Channel withToken(Channel channel, String token) {
    if (token == null) {
      return channel;
    }
    return ClientInterceptors.intercept(
        channel, MetadataUtils.newAttachHeadersInterceptor(metadata(key("authorization"), "Bearer " + token)));
  }

  /** Calls the contract's own service, which answers when the harvest has ended. */
  private static void harvest(Channel channel) {
    HarvestRequest request =
        HarvestRequest.newBuilder().setSupplierCode("camping-trade").setMaxProducts(300).build();
    // Calls with the same id are one request: however often it is sent, it is one harvest.
    Metadata requestId = metadata(REQUEST_ID, UUID.randomUUID().toString());
    AtomicReference<Metadata> first = new AtomicReference<>();
    AtomicReference<Metadata> second = new AtomicReference<>();
    HarvestResponse response = client(channel, requestId, first).harvest(request);
    System.out.printf(
        "typed: %s: %d products synced%n", first.get().get(WORKFLOW_ID), response.getCounts().getSynced());

    client(channel, requestId, second).harvest(request);
    System.out.println("repeated: same run: " + first.get().get(RUN_ID).equals(second.get().get(RUN_ID)));
  }

  private static HarvestServiceGrpc.HarvestServiceBlockingStub client(
      Channel channel, Metadata headers, AtomicReference<Metadata> answered) {
    return HarvestServiceGrpc.newBlockingStub(channel)
        .withInterceptors(
            MetadataUtils.newAttachHeadersInterceptor(headers),
            MetadataUtils.newCaptureMetadataInterceptor(answered, new AtomicReference<>()))
        // A call that runs into its deadline ends; the harvest goes on, and the same call again attaches to it.
        .withDeadlineAfter(2, TimeUnit.MINUTES);
  }

  /** Sends what breaks the contract's rules, and reads which fields are wrong. */
  private static void refused(Channel channel) throws InvalidProtocolBufferException {
    HarvestRequest request =
        HarvestRequest.newBuilder().setSupplierCode("camping-trade").setPageSize(5000).build();
    try {
      HarvestServiceGrpc.newBlockingStub(channel).harvest(request);
    } catch (StatusRuntimeException error) {
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(BadRequest.class)) {
          for (BadRequest.FieldViolation violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
            System.out.printf(
                "refused: %s: %s: %s%n",
                error.getStatus().getCode(), violation.getField(), violation.getDescription());
          }
        }
      }
      return;
    }
    throw new IllegalStateException("a page size of 5000 was not refused");
  }

  /** Starts a harvest by the envelope, which answers at once, and follows it to its end. */
  private static void watch(Channel channel) throws InvalidProtocolBufferException {
    WorkerServiceGrpc.WorkerServiceBlockingStub client = WorkerServiceGrpc.newBlockingStub(channel);
    HarvestRequest body =
        HarvestRequest.newBuilder().setSupplierCode("camping-trade").setMaxProducts(300).build();
    // The same unit sent again is the same request.
    ContextUnit unit =
        ContextUnit.newBuilder()
            .setUnitId(UUID.randomUUID().toString())
            .setBody(Any.pack(body))
            .addProvenance("harvester:start")
            .build();
    StartWorkflowResult first = client.startWorkflow(unit).getBody().unpack(StartWorkflowResult.class);
    StartWorkflowResult second = client.startWorkflow(unit).getBody().unpack(StartWorkflowResult.class);
    System.out.println("started: " + first.getWorkflowId());
    System.out.println("repeated: same run: " + first.getRunId().equals(second.getRunId()));

    WatchTaskRequest ask =
        WatchTaskRequest.newBuilder().setWorkflowId(first.getWorkflowId()).setRunId(first.getRunId()).build();
    var answers = client.watchTask(ContextUnit.newBuilder().setBody(Any.pack(ask)).build());
    while (answers.hasNext()) {
      TaskStatus task = answers.next().getBody().unpack(TaskStatus.class);
      System.out.println("watched: " + task.getStatus());
      if (task.hasResult()) {
        HarvestResponse response = task.getResult().unpack(HarvestResponse.class);
        System.out.printf("result: %d products synced%n", response.getCounts().getSynced());
      }
    }
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  private static Metadata metadata(Metadata.Key<String> key, String value) {
    Metadata metadata = new Metadata();
    metadata.put(key, value);
    return metadata;
  }
}
