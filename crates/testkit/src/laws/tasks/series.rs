//! Laws of the minute series of tasks.

use std::time::Duration;

use phalanx_core::backend::{SERIES_MINUTES, SERIES_TASKS, TaskMinute, TimeCounts};

use super::{SharedTasks, now_ms};

fn counted(minute: u64, task: &str, failed: u64, ms: &[u64]) -> TaskMinute {
    let mut times = TimeCounts::default();
    ms.iter().for_each(|ms| times.add(TimeCounts::class_of(Duration::from_millis(*ms)), 1));
    TaskMinute { minute, task: task.into(), processed: ms.len() as u64, failed, times }
}

async fn add(store: &SharedTasks, minutes: &[TaskMinute]) {
    store.add_minutes(minutes).await.expect("the backend answers");
}

async fn read(store: &SharedTasks, from: u64, to: u64) -> Vec<TaskMinute> {
    store.minutes(from, to).await.expect("the backend answers")
}

/// Those of all nodes, in the order of the minutes and names.
pub async fn the_counts_of_a_minute_add_up(store: SharedTasks) {
    let now = now_ms() / 60_000;
    add(&store, &[counted(now, "b", 1, &[1, 1, 900]), counted(now - 1, "b", 0, &[5])]).await;
    add(&store, &[counted(now, "a", 0, &[7]), counted(now, "b", 2, &[1, 30_000, 30_000])]).await;
    add(&store, &[]).await;
    let expected = [
        counted(now - 1, "b", 0, &[5]),
        counted(now, "a", 0, &[7]),
        counted(now, "b", 3, &[1, 1, 1, 900, 30_000, 30_000]),
    ];
    assert_eq!(read(&store, now - SERIES_MINUTES, now).await, expected);
    assert_eq!(read(&store, now, now).await, expected[1..]);
    assert_eq!(read(&store, now + 1, now).await, []);
}

/// Those that are there still count.
pub async fn a_minute_has_a_bounded_number_of_tasks(store: SharedTasks) {
    let now = now_ms() / 60_000;
    let all: Vec<_> = (0..SERIES_TASKS).map(|number| counted(now, &format!("t{number:04}"), 0, &[1])).collect();
    for batch in all.chunks(100) {
        add(&store, batch).await;
    }
    add(&store, &[counted(now, "z", 0, &[1]), counted(now, "t0000", 0, &[1])]).await;
    let found = read(&store, now, now).await;
    assert_eq!((found.len(), found[0].processed), (SERIES_TASKS, 2));
    assert!(found.iter().all(|minute| *minute.task != *"z"));
}
