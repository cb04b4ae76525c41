// Harvester has a supplier's catalogue harvested by ContextWorker, first by the contract's own service, then by the
// envelope, and says what came of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"example.com/harvester/gen/contextunity/core"
	harvestv1 "example.com/harvester/gen/contextunity/harvest/v1"
	"example.com/harvester/gen/contextunity/worker"
)

// bearer shows a token with each call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// RequireTransportSecurity says no, for a service on this machine. Elsewhere use TLS, and say yes.
func (bearer) RequireTransportSecurity() bool { return false }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "harvester:", err)
		os.Exit(1)
	}
}

func run() error {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if token := os.Getenv("CONTEXTWORKER_TOKEN"); token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	conn, err := grpc.NewClient(os.Getenv("CONTEXTWORKER_TARGET"), options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	// A call that runs into its deadline ends; the harvest goes on, and the same call again attaches to it.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := harvest(ctx, harvestv1.NewHarvestServiceClient(conn)); err != nil {
		return err
	}
	if err := refused(ctx, harvestv1.NewHarvestServiceClient(conn)); err != nil {
		return err
	}
	return watch(ctx, worker.NewWorkerServiceClient(conn))
}

// harvest calls the contract's own service, which answers when the harvest has ended.
func harvest(ctx context.Context, client harvestv1.HarvestServiceClient) error {
	request := &harvestv1.HarvestRequest{SupplierCode: "camping-trade", MaxProducts: 300}
	// Calls with the same id are one request: however often it is sent, it is one harvest.
	ctx = metadata.AppendToOutgoingContext(ctx, "contextunity-request-id", uuid.NewString())
	var first, second metadata.MD
	response, err := client.Harvest(ctx, request, grpc.Header(&first))
	if err != nil {
		return err
	}
	fmt.Printf("typed: %s: %d products synced\n", first.Get("contextunity-workflow-id")[0], response.GetCounts().GetSynced())

	if _, err = client.Harvest(ctx, request, grpc.Header(&second)); err != nil {
		return err
	}
	fmt.Println("repeated: same run:", first.Get("contextunity-run-id")[0] == second.Get("contextunity-run-id")[0])
	return nil
}

// refused sends what breaks the contract's rules, and reads which fields are wrong.
func refused(ctx context.Context, client harvestv1.HarvestServiceClient) error {
	_, err := client.Harvest(ctx, &harvestv1.HarvestRequest{SupplierCode: "camping-trade", PageSize: 5000})
	if err == nil {
		return errors.New("a page size of 5000 was not refused")
	}
	for _, detail := range status.Convert(err).Details() {
		if request, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range request.GetFieldViolations() {
				fmt.Printf("refused: %s: %s: %s\n", status.Code(err), violation.GetField(), violation.GetDescription())
			}
		}
	}
	return nil
}

// watch starts a harvest by the envelope, which answers at once, and follows it to its end.
func watch(ctx context.Context, client worker.WorkerServiceClient) error {
	body, err := anypb.New(&harvestv1.HarvestRequest{SupplierCode: "camping-trade", MaxProducts: 300})
	if err != nil {
		return err
	}
	// The same unit sent again is the same request.
	unit := &core.ContextUnit{UnitId: uuid.NewString(), Body: body, Provenance: []string{"harvester:start"}}
	var first, second worker.StartWorkflowResult
	for _, started := range []*worker.StartWorkflowResult{&first, &second} {
		answer, err := client.StartWorkflow(ctx, unit)
		if err != nil {
			return err
		}
		if err := answer.GetBody().UnmarshalTo(started); err != nil {
			return err
		}
	}
	fmt.Println("started:", first.GetWorkflowId())
	fmt.Println("repeated: same run:", first.GetRunId() == second.GetRunId())

	ask, err := anypb.New(&worker.WatchTaskRequest{WorkflowId: first.GetWorkflowId(), RunId: first.GetRunId()})
	if err != nil {
		return err
	}
	stream, err := client.WatchTask(ctx, &core.ContextUnit{Body: ask})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var task worker.TaskStatus
		if err := answer.GetBody().UnmarshalTo(&task); err != nil {
			return err
		}
		fmt.Println("watched:", task.GetStatus())
		var response harvestv1.HarvestResponse
		if result := task.GetResult(); result != nil {
			if err := result.UnmarshalTo(&response); err != nil {
				return err
			}
			fmt.Printf("result: %d products synced\n", response.GetCounts().GetSynced())
		}
	}
}
