//! What a node does after a gap: it finds the rooms that were destroyed meanwhile, and compares no more members than that
//! takes.

use std::ops::Range;
use std::time::Duration;

use phalanx_testkit::{Direction, Flow, Proxy, Redis, at_most};
use tokio::time::{sleep, timeout};

use crate::recovery::{BACK, LargeNode, members};

/// More than one script lists, and twice as many are more than the routine check, a hundred connections a second, looks at
/// in the time of the test.
const EACH: usize = 600;

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(at_most(BACK), waiting).await.unwrap_or_else(|_| panic!("they are not {what}"));
}

/// Rooms are destroyed and created again while no message arrives: those who were in one have left it, those who joined
/// since have not, although both are in a room of that name on the same node. Whichever connection is looked at first, it
/// is in the new room of one of the two names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_incarnation_of_a_room_is_checked_after_a_gap() {
    let redis = Redis::start().await;
    let proxy = Proxy::before(redis.addr()).await;
    let names = ["a", "b", "s"].map(str::to_owned);
    let mut node = LargeNode::start_with(&redis.url_through(proxy.addr()), "one", &names).await;
    let other = LargeNode::start_with(&redis.url(), "two", &names).await;
    node.connect(2 * EACH);
    node.join_all("s").await;
    let (first, second) = (0..EACH, EACH..2 * EACH);
    node.join_some(first.clone(), "a").await;
    node.join_some(second.clone(), "b").await;
    proxy.hold_flow(Flow::Subscribing, Direction::ToClient);
    let rooms = other.engine.node().rooms();
    for room in ["a", "b"] {
        rooms.destroy(room).await.unwrap();
        rooms.create(room).await.unwrap();
    }
    node.join_some(second.clone(), "a").await;
    node.join_some(first.clone(), "b").await;
    let are_in =
        |some: &Range<usize>, room: &str| node.connections[some.clone()].iter().filter(|it| it.is_in(room)).count();
    let all = || [(&first, "a"), (&second, "b"), (&second, "a"), (&first, "b")].map(|(some, room)| are_in(some, room));
    // But for what the routine check has found, the node does not know yet.
    assert!(all().iter().all(|count| *count > EACH / 2), "{:?}", all());
    proxy.close_flow(Flow::Subscribing);
    until("out of the rooms that were destroyed", async || all()[..2] == [0, 0]).await;
    assert_eq!(all(), [0, 0, EACH, EACH], "the others stay");
    let counts = async || [members(&redis, "a").await, members(&redis, "b").await, members(&redis, "s").await];
    assert_eq!(counts().await, [EACH, EACH, 2 * EACH]);
    let held = format!("HLEN phalanx:laws:held:{}", node.engine.node().generation());
    until("rid of the memberships that were stored", async || {
        redis.command(&held).await == format!(":{}\r\n", 4 * EACH)
    })
    .await;
    node.engine.stop().await;
    other.engine.stop().await;
}

/// The members of a room are lost, and by chance messages are missed then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_of_a_room_are_listed_again_if_one_is_not_listed() {
    const MANY: usize = 2 * EACH;
    let redis = Redis::start().await;
    let mut node = LargeNode::start_at(&redis.url(), "one").await;
    node.join("r", MANY).await;
    redis.command("DEL actionhero:chatRoom:members:r").await;
    redis.command("CLIENT KILL TYPE pubsub").await;
    until("listed", async || members(&redis, "r").await == MANY).await;
    node.engine.stop().await;
}
