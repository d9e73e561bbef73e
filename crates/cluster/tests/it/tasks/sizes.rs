//! Large jobs: few of them are read at once.

use phalanx_core::backend::{DeleteOutcome, GiveBackOutcome, JobState, NewJob};
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, job, nodes};

/// A job of 100 KiB.
fn large(id: &str) -> NewJob {
    let text = format!(r#"{{"class":"c","queue":"q","args":[{{"text":"{}"}}],"id":"{id}"}}"#, "x".repeat(100 * 1024));
    NewJob { text: text.into(), ..job(id) }
}

#[tokio::test]
async fn large_jobs_go_back_a_few_at_a_time_and_in_their_order() {
    let (store, _redis) = super::store().await;
    let dying = LawWorker::new(&store, 1);
    let ids: Vec<String> = (0..10).map(|number| format!("j{number}")).collect();
    for id in &ids {
        enqueue(&store, &[large(id)]).await;
        assert_eq!(dying.fetch(1).await.len(), 1);
    }
    assert_eq!(store.attempts(nodes()[1]).await.unwrap().len(), 10);
    assert_eq!(store.status("j9").await.unwrap().state, JobState::Running(nodes()[1]));
    let mut rounds = 0;
    while store.give_back(nodes()[0], nodes()[1], "w").await.unwrap() != GiveBackOutcome::Done {
        rounds += 1;
        assert_eq!(store.waiting("q", 0, 99).await.unwrap().len(), rounds * 2, "of 256 KiB at most");
    }
    let waiting = store.waiting("q", 0, 99).await.unwrap();
    for (text, id) in waiting.iter().zip(&ids) {
        assert!(String::from_utf8_lossy(text).contains(&format!("\"{id}\"")), "{id}");
    }
}

#[tokio::test]
async fn a_search_reads_a_list_in_short_pages() {
    let (store, redis) = super::store().await;
    let jobs: Vec<NewJob> = (0..120).map(|number| job(&number.to_string())).collect();
    enqueue(&store, &jobs).await;
    let before = redis.ran("lrange").await;
    assert_eq!(store.status("0").await.unwrap().state, JobState::Waiting);
    assert_eq!(redis.ran("lrange").await - before, 5, "8, 64 and the others, and one of each list that is empty");
    let before = redis.ran("lrange").await;
    let waiting = store.waiting("q", 5, 110).await.unwrap();
    assert_eq!(redis.ran("lrange").await - before, 5, "50, 50 and 10, and one of each list that is empty");
    for (text, number) in waiting.iter().zip(5..) {
        assert!(String::from_utf8_lossy(text).contains(&format!("\"{number}\"")), "{number}");
    }
    assert_eq!((waiting.len(), store.waiting("q", 100, 50).await.unwrap().len()), (110, 20));
    assert_eq!(store.delete("60").await.unwrap(), DeleteOutcome::Marked);
}

#[tokio::test]
async fn young_parked_jobs_are_not_read_but_for_the_first_one() {
    let (store, redis) = super::store().await;
    redis.command("SADD phalanx:laws:parked c d").await;
    for number in 0..40 {
        redis.command(&format!("RPUSH phalanx:laws:parked:c '100{number} q 0 0 0 {{}}'")).await;
        redis.command(&format!("RPUSH phalanx:laws:parked:d '1 q 0 0 0 {{\"id\":\"{number}\"}}'")).await;
    }
    let before = redis.ran("lrange").await;
    assert_eq!(store.fail_parked(1, "w", &[]).await.unwrap(), 0);
    assert_eq!(redis.ran("lrange").await, before);
    assert_eq!(store.fail_parked(2, "w", &[]).await.unwrap(), 40);
    assert_eq!(redis.command("LLEN phalanx:laws:parked:c").await, ":40\r\n");
}

#[tokio::test]
async fn failed_jobs_are_read_in_short_pages() {
    let (store, redis) = super::store().await;
    let records: Vec<String> = (0..120).map(|number| format!("r{number}")).collect();
    redis.command(&format!("RPUSH resque:failed {}", records.join(" "))).await;
    let failed = store.failed(5, 110).await.unwrap();
    assert!(failed.iter().map(|record| &record[..]).eq(records[5..115].iter().map(String::as_bytes)));
    assert_eq!(redis.ran("lrange").await, 3);
    assert_eq!(store.failed(100, 50).await.unwrap().len(), 20);
    assert_eq!(store.failed(0, 0).await.unwrap().len(), 0);
}
