//! Has a supplier's catalogue harvested by ContextWorker, first by the contract's own service, then by the envelope, and
//! says what came of it.

use std::time::Duration;

use prost_types::Any;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use contextunity::core::ContextUnit;
use contextunity::harvest::v1::harvest_service_client::HarvestServiceClient;
use contextunity::harvest::v1::{HarvestRequest, HarvestResponse};
use contextunity::worker::worker_service_client::WorkerServiceClient;
use contextunity::worker::{StartWorkflowResult, TaskStatus, WatchTaskRequest};

mod protos {
    #![allow(clippy::all, dead_code)]
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}
use protos::contextunity;

type Error = Box<dyn std::error::Error>;

/// Shows a token with each call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

type Calls = InterceptedService<Channel, Bearer>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let target = std::env::var("CONTEXTWORKER_TARGET")?;
    let token = match std::env::var("CONTEXTWORKER_TOKEN") {
        Ok(token) => Some(format!("Bearer {token}").parse()?),
        Err(_) => None,
    };
    // A call that runs into its deadline ends; the harvest goes on, and the same call again attaches to it.
    let endpoint = Endpoint::from_shared(format!("http://{target}"))?.timeout(Duration::from_secs(120));
    let calls = InterceptedService::new(endpoint.connect().await?, Bearer(token));
    harvest(calls.clone()).await?;
    refused(calls.clone()).await?;
    watch(calls).await
}

/// Calls the contract's own service, which answers when the harvest has ended.
async fn harvest(calls: Calls) -> Result<(), Error> {
    let mut client = HarvestServiceClient::new(calls);
    // Calls with the same id are one request: however often it is sent, it is one harvest.
    let request_id: MetadataValue<Ascii> = Uuid::new_v4().to_string().parse()?;
    let request = || {
        let message = HarvestRequest {
            supplier_code: "camping-trade".into(),
            max_products: 300,
            ..Default::default()
        };
        let mut request = Request::new(message);
        request.metadata_mut().insert("contextunity-request-id", request_id.clone());
        request
    };
    let first = client.harvest(request()).await?;
    let synced = first.get_ref().counts.as_ref().map_or(0, |counts| counts.synced);
    println!("typed: {}: {synced} products synced", header(&first, "contextunity-workflow-id"));

    let second = client.harvest(request()).await?;
    let run_id = "contextunity-run-id";
    println!("repeated: same run: {}", header(&first, run_id) == header(&second, run_id));
    Ok(())
}

fn header<'a, T>(response: &'a Response<T>, key: &str) -> &'a str {
    response.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Sends what breaks the contract's rules, and reads which fields are wrong.
async fn refused(calls: Calls) -> Result<(), Error> {
    let request = HarvestRequest {
        supplier_code: "camping-trade".into(),
        page_size: 5000,
        ..Default::default()
    };
    let Err(status) = HarvestServiceClient::new(calls).harvest(request).await else {
        return Err("a page size of 5000 was not refused".into());
    };
    let Some(details) = status.get_details_bad_request() else {
        return Err(status.into());
    };
    for violation in details.field_violations {
        println!("refused: {:?}: {}: {}", status.code(), violation.field, violation.description);
    }
    Ok(())
}

/// Starts a harvest by the envelope, which answers at once, and follows it to its end.
async fn watch(calls: Calls) -> Result<(), Error> {
    let mut client = WorkerServiceClient::new(calls);
    let request = HarvestRequest {
        supplier_code: "camping-trade".into(),
        max_products: 300,
        ..Default::default()
    };
    // The same unit sent again is the same request.
    let unit = ContextUnit {
        unit_id: Uuid::new_v4().to_string(),
        body: Some(Any::from_msg(&request)?),
        provenance: vec!["harvester:start".into()],
        ..Default::default()
    };
    let first: StartWorkflowResult = body(client.start_workflow(unit.clone()).await?.into_inner())?;
    let second: StartWorkflowResult = body(client.start_workflow(unit).await?.into_inner())?;
    println!("started: {}", first.workflow_id);
    println!("repeated: same run: {}", first.run_id == second.run_id);

    let ask = WatchTaskRequest {
        workflow_id: first.workflow_id,
        run_id: first.run_id,
        ..Default::default()
    };
    let unit = ContextUnit {
        body: Some(Any::from_msg(&ask)?),
        ..Default::default()
    };
    let mut answers = client.watch_task(unit).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let task: TaskStatus = body(answer)?;
        println!("watched: {}", task.status().as_str_name());
        if let Some(result) = task.result {
            let response: HarvestResponse = result.to_msg()?;
            println!("result: {} products synced", response.counts.map_or(0, |counts| counts.synced));
        }
    }
    Ok(())
}

/// The typed message in a unit.
fn body<M: Default + prost::Name>(unit: ContextUnit) -> Result<M, Error> {
    Ok(unit.body.ok_or("the answer has no body")?.to_msg()?)
}
