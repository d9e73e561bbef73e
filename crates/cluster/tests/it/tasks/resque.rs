//! Jobs that resque's own enqueuers and schedulers stored.

use phalanx_core::backend::{AttemptEnd, EnqueueOutcome, GiveBackOutcome, NewJob, SettleOutcome, WorkerSign};
use phalanx_core::job::FailedJob;
use phalanx_testkit::laws::tasks::{LawWorker, enqueue, failure, job, nodes};

#[tokio::test]
async fn two_equal_foreign_jobs_are_two_jobs() {
    let (store, redis) = super::store().await;
    let text = r#"{"class":"c","queue":"q","args":[{}]}"#;
    for _ in 0..2 {
        redis.command(&format!("RPUSH resque:queue:q '{text}'")).await;
    }
    let worker = LawWorker::new(&store, 0);
    let fetched = worker.fetch(5).await;
    assert_eq!(fetched.iter().map(|job| &job.text[..]).collect::<Vec<_>>(), [text.as_bytes(); 2]);
    // Both are delayed, and are two all the same.
    for job in &fetched {
        worker.settle(job, AttemptEnd::Retry { due_ms: 4_000_000_000_000 }).await;
    }
    assert_eq!(store.stats().await.unwrap().delayed, 2);
    assert_eq!(redis.command("SMEMBERS resque:queues").await, "*0\r\n", "the queue is named when a job comes back");
}

#[tokio::test]
async fn a_copy_of_a_job_with_its_id_is_another_job() {
    let (store, redis) = super::store().await;
    enqueue(&store, &[job("a")]).await;
    let text = r#"{"class":"c","queue":"q","args":[],"id":"a"}"#;
    redis.command(&format!("RPUSH resque:queue:q '{text}'")).await;
    let worker = LawWorker::new(&store, 0);
    for job in worker.fetch(5).await {
        worker.settle(&job, AttemptEnd::Retry { due_ms: 4_000_000_000_000 }).await;
    }
    assert_eq!(store.stats().await.unwrap().delayed, 2);
}

#[tokio::test]
async fn foreign_delayed_jobs_are_promoted() {
    let (store, redis) = super::store().await;
    let text = r#"{"class":"c","queue":"far","args":[{"n":1}]}"#;
    for command in [
        format!("RPUSH resque:delayed:100 '{text}' '{text}'"),
        "RPUSH resque:delayed:100 rubbish".to_owned(),
        format!("SADD 'resque:timestamps:{}' delayed:100 delayed:4000000000", text.replace('\'', "")),
        "ZADD resque:delayed_queue_schedule 100 100 4000000000 4000000000".to_owned(),
    ] {
        redis.command(&command).await;
    }
    let promotion = store.promote().await.unwrap();
    assert_eq!((promotion.moved, promotion.next_due_ms), (3, Some(4_000_000_000_000)));
    let waiting = store.waiting("far", 0, 9).await.unwrap();
    assert_eq!(waiting.iter().map(|text| &text[..]).collect::<Vec<_>>(), [text.as_bytes(); 2]);
    assert_eq!(redis.command("SMEMBERS resque:queues").await, "*1\r\n$3\r\nfar\r\n");
    assert_eq!(redis.command("EXISTS resque:delayed:100").await, ":0\r\n");
    assert_eq!(redis.command("ZCARD resque:delayed_queue_schedule").await, ":1\r\n");
    assert_eq!(redis.command(&format!("SCARD 'resque:timestamps:{text}'")).await, ":1\r\n");
    let failed = FailedJob::read(&store.failed(0, 1).await.unwrap()[0]);
    assert!(failed.payload.get().contains("rubbish"), "{failed:?}");
}

/// An enqueuer that delays by a negative time writes one.
#[tokio::test]
async fn a_negative_time_is_due_and_keeps_no_delayed_job_waiting() {
    for time in ["-1", "-inf", "-0"] {
        let (store, redis) = super::store().await;
        redis.command(&format!("ZADD resque:delayed_queue_schedule {time} junk 1 1")).await;
        redis.command("RPUSH resque:delayed:1 '{\"class\":\"c\",\"queue\":\"q\"}'").await;
        redis.command("SET phalanx:laws:promoter other PX 60000").await;
        assert_eq!(store.promote().await.unwrap().next_due_ms, Some(0), "{time}");
        redis.command("DEL phalanx:laws:promoter").await;
        let promotion = store.promote().await.unwrap();
        assert_eq!((promotion.moved, promotion.next_due_ms), (1, None), "{time}");
    }
}

#[tokio::test]
async fn a_foreign_delayed_job_goes_to_the_queue_that_it_names_whatever_its_name_is() {
    let (store, redis) = super::store().await;
    let names = ["two words".to_owned(), "n".repeat(100), String::new(), "n".repeat(101)];
    for name in &names {
        redis.command(&format!("RPUSH resque:delayed:1 '{{\"class\":\"c\",\"queue\":\"{name}\"}}'")).await;
    }
    redis.command("ZADD resque:delayed_queue_schedule 1 1").await;
    assert_eq!(store.promote().await.unwrap().moved, 4);
    for (name, expected) in names.iter().zip([1, 1, 0, 0]) {
        assert_eq!(redis.command(&format!("LLEN 'resque:queue:{name}'")).await, format!(":{expected}\r\n"), "{name}");
    }
    assert_eq!(store.failed(0, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_node_is_a_worker_for_as_long_as_it_has_a_lease_or_gives_signs() {
    let (store, redis) = super::store().await;
    let gone = "n:cccccccccc";
    redis.command(&format!("SADD resque:workers host:4749+1:q {gone}:q other:dddddddddd:q")).await;
    redis.command(&format!("SET resque:worker:{gone}:q:started 7")).await;
    redis.command("SET resque:worker:ping:other:dddddddddd sign").await;
    let queues = ["q", "low"].map(Into::into);
    let sign = WorkerSign { generation: nodes()[0], queues: &queues, working_on: None };
    assert_eq!(store.show_worker(&sign).await.unwrap(), None);
    let workers = store.stats().await.unwrap().workers;
    let workers: std::collections::BTreeSet<&str> = workers.iter().map(String::as_str).collect();
    assert_eq!(workers, ["host:4749+1:q", "n:aaaaaaaaaa:q,low", "other:dddddddddd:q"].into());
    assert_eq!(redis.command(&format!("EXISTS resque:worker:{gone}:q:started")).await, ":0\r\n");
    let sign = redis.command("GET resque:worker:ping:n:aaaaaaaaaa").await;
    let sign: serde_json::Value = serde_json::from_str(sign.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&sign["name"], &sign["queues"]), (&"n:aaaaaaaaaa".into(), &"q,low".into()));
    assert!(sign["time"].as_u64().unwrap() > 1_700_000_000, "{sign}");
    assert_eq!(redis.command("EXISTS resque:worker:n:aaaaaaaaaa:q,low:started").await, ":1\r\n");
}

/// Whose the queues are is said all the same; and not to a node without a lease, which could not be told.
#[tokio::test]
async fn a_node_learns_whose_the_queues_are_where_the_set_of_workers_is_spoilt_and_not_without_a_lease() {
    let (store, redis) = super::store().await;
    redis.command("SET resque:workers x").await;
    let queues = ["q".into()];
    let sign = WorkerSign { generation: nodes()[0], queues: &queues, working_on: None };
    assert_eq!(store.show_worker(&sign).await.unwrap(), None);
    assert_eq!(redis.command("GET resque:phalanx:cluster").await, "$4\r\nlaws\r\n");
    redis.command("SET resque:phalanx:cluster other").await;
    assert_eq!(store.show_worker(&sign).await.unwrap().as_deref(), Some("other"));
    redis.command("DEL phalanx:laws:leases").await;
    store.show_worker(&sign).await.unwrap_err();
}

/// Resque's tools may name a queue in any way.
#[tokio::test]
async fn a_job_of_a_queue_with_spaces_ends_in_every_way() {
    let (store, redis) = super::store().await;
    let queue = "my queue ";
    for n in 0..5 {
        redis.command(&format!(r#"RPUSH "resque:queue:{queue}" '{{"class":"c","queue":"q","args":[{n}]}}'"#)).await;
    }
    let [reaper, dying] = nodes();
    let worker = LawWorker::serving(&store, dying, &[queue]);
    let fetched = worker.fetch(5).await;
    assert_eq!(fetched.len(), 5);
    assert_eq!(store.attempts(dying).await.unwrap().len(), 5, "each can be read back");
    let ends = [
        AttemptEnd::Park { class: "c".into() },
        AttemptEnd::GiveBack,
        AttemptEnd::Retry { due_ms: 0 },
        failure(&fetched[3]),
        AttemptEnd::Done,
    ];
    for (job, end) in fetched.iter().zip(ends) {
        assert_eq!(worker.settle(job, end).await, SettleOutcome::Accepted);
    }
    let taken = worker.take_parked(&["c"], 5).await.unwrap().fetched.len();
    assert_eq!((taken, worker.fetch(5).await.len()), (1, 2), "parked; given back, and to be repeated");
    while let GiveBackOutcome::Some(_) = store.give_back(reaper, dying, "host:9").await.unwrap() {}
    let heir = LawWorker::serving(&store, reaper, &[queue]);
    assert_eq!(heir.fetch(5).await.len(), 3, "also after the death of their node");
}

/// An id that a caller chose names one job after the other.
#[tokio::test]
async fn a_mark_of_deletion_is_for_one_job_only() {
    let (store, redis) = super::store().await;
    redis.command("ZADD phalanx:laws:deleted 4000000000 a").await;
    let chosen = NewJob { digest: Some([7; 16]), ..job("a") };
    assert_eq!(enqueue(&store, &[chosen]).await, [EnqueueOutcome::Stored]);
    assert_eq!(redis.command("ZCARD phalanx:laws:deleted").await, ":0\r\n");
}

#[tokio::test]
async fn the_job_that_a_node_works_on_is_shown_until_it_ends() {
    let (store, redis) = super::store().await;
    let [one, other] = nodes();
    let queues = ["q".into()];
    let show = async |generation, working_on| {
        let sign = WorkerSign { generation, queues: &queues, working_on };
        store.show_worker(&sign).await.unwrap()
    };
    let works = "EXISTS resque:worker:n:aaaaaaaaaa:q";
    show(one, Some(b"{}")).await;
    assert_eq!(redis.command("GET resque:worker:n:aaaaaaaaaa:q").await, "$2\r\n{}\r\n");
    show(one, None).await;
    assert_eq!(redis.command(works).await, ":0\r\n");
    show(one, Some(b"{}")).await;
    show(other, None).await;
    assert_eq!(redis.command("SCARD resque:workers").await, ":2\r\n");
    // The node has died, or stopped, while it worked on it.
    store.remove_worker(one).await.unwrap();
    assert_eq!(redis.command("KEYS resque:*aaaaaaaaaa*").await, "*0\r\n");
    assert_eq!(redis.command("SMEMBERS resque:workers").await, "*1\r\n$14\r\nn:bbbbbbbbbb:q\r\n");
    let left: i64 =
        redis.command("TTL resque:worker:ping:n:bbbbbbbbbb").await.trim_matches([':', '\r', '\n']).parse().unwrap();
    assert!((55..=60).contains(&left), "{left}");
}

#[tokio::test]
async fn the_first_cluster_of_a_prefix_has_it_while_its_nodes_say_so() {
    let (store, redis) = super::store().await;
    let queues = ["q".into()];
    let show = async |store: &std::sync::Arc<dyn phalanx_core::backend::TaskStore>| {
        let sign = WorkerSign { generation: nodes()[0], queues: &queues, working_on: None };
        store.show_worker(&sign).await.unwrap()
    };
    redis.command(&format!("ZADD phalanx:tour:leases 9e15 {}", nodes()[0])).await;
    let later = super::of_cluster(&redis.url(), "tour");
    for _ in 0..2 {
        assert_eq!(show(&store).await, None);
        assert_eq!(show(&later).await.as_deref(), Some("laws"));
    }
    let left: i64 = redis.command("TTL resque:phalanx:cluster").await.trim_matches([':', '\r', '\n']).parse().unwrap();
    assert!((55..=60).contains(&left), "{left}: those that have it not do not keep it");
    redis.command("DEL resque:phalanx:cluster").await; // it has expired
    assert_eq!(show(&later).await, None);
    assert_eq!(show(&store).await.as_deref(), Some("tour"));
    redis.command("DEL resque:phalanx:cluster").await;
    redis.command("RPUSH resque:phalanx:cluster spoilt").await;
    assert_eq!(show(&store).await, None);
}
