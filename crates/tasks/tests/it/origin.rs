//! The origin of a job, on its way to the jobs that its attempts enqueue.

use phalanx_core::backend::NewJob;

use crate::harness::Harness;

#[tokio::test]
async fn request_trace_and_values_are_handed_on_to_the_jobs_of_a_job() {
    let harness = Harness::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let text = format!(
        r#"{{"class":"plain","queue":"default","args":[{{"name":"a","ends":["enqueue","enqueue"]}}],"id":"j",
        "meta":{{"request":"r-1","traceparent":"{trace}","values":{{"tenant":"t"}}}}}}"#
    );
    let job = NewJob::new("j", "default", text);
    harness.engine.task_store().unwrap().enqueue(&[job], u64::MAX / 4).await.unwrap();
    harness.until_logged("a'' 1").await;
    let expected = format!("r-1 {trace} t");
    assert_eq!(harness.log.entries(), ["a 1", &expected, "a' 1", &expected, "a'' 1"]);
    harness.engine.stop().await;
}
