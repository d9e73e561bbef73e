use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::{Client, Keys, OwnName, RedisClock, RedisLocks, RedisMembership, RedisRooms, Spoken};
use phalanx_core::backend::{
    BackendError, Departed, Joined, Leaves, LockStore, Member, Membership, NodeRecord, Renewal, RoomStore, Standing,
};
use phalanx_core::{ConnectionId, Generation};
use phalanx_testkit::Redis;
use phalanx_testkit::laws::membership::record;
use tokio::time::{Instant, sleep};

async fn membership() -> (Arc<dyn Membership>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(RedisMembership::new(client, keys, Arc::new(RedisClock::default()), Spoken::default())), redis)
}

phalanx_testkit::membership_laws!(redis: super::membership().await);

/// A cluster of records: whoever is not renewed lapses.
struct World {
    membership: RedisMembership,
    rooms: RedisRooms,
    redis: Redis,
}

impl World {
    async fn new() -> Self {
        let (redis, client, keys) = super::redis().await;
        Self::over(redis, client, keys).await
    }

    async fn over(redis: Redis, client: Client, keys: Keys) -> Self {
        let membership =
            RedisMembership::new(client.clone(), keys.clone(), Arc::new(RedisClock::default()), Spoken::default());
        let rooms = RedisRooms::new(client, keys, "n");
        rooms.add("r", 10).await.unwrap();
        Self { membership, rooms, redis }
    }

    async fn node(&self) -> NodeRecord {
        let node = record(Generation::random());
        self.membership.register(&node).await.unwrap();
        node
    }

    async fn renew(&self, node: &NodeRecord) -> Standing {
        match self.membership.renew(node.generation).await.unwrap() {
            Renewal::Standing(standing) => standing,
            Renewal::Gone => panic!("{} has a lease", node.id),
        }
    }

    /// Renews one node until the lease of the other has run out.
    async fn lapse(&self, living: &NodeRecord, dead: &NodeRecord) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.renew(living).await.lapsed.contains(&dead.generation) {
            assert!(Instant::now() < deadline, "a lease that nobody renews runs out");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Claims on what is so now.
    async fn claim(&self, by: &NodeRecord, dead: &NodeRecord) -> bool {
        let seen_us = self.renew(by).await.now_us;
        self.membership.claim(by.generation, dead.generation, seen_us).await.unwrap()
    }

    async fn join(&self, node: &NodeRecord, number: u64) -> Result<Joined, BackendError> {
        self.rooms.join("r", &member(number), node.generation).await
    }

    async fn members(&self) -> usize {
        self.rooms.members("r", 1000).await.unwrap().unwrap().count
    }
}

fn member(number: u64) -> Member {
    Member { id: ConnectionId::parse(&format!("c-{number}")).unwrap(), joined_at: number }
}

fn departed(leaves: Leaves) -> Vec<Departed> {
    match leaves {
        Leaves::Some(departed) => departed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_is_revived_by_whoever_renews_first() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    world.lapse(&one, &other).await;
    world.renew(&other).await;
    assert!(!world.claim(&one, &other).await);
    assert_eq!(world.renew(&one).await.lapsed, []);
}

#[tokio::test]
async fn from_the_reap_on_nothing_of_the_dead_is_accepted() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    world.lapse(&one, &other).await;
    assert!(matches!(world.join(&other, 1).await.unwrap(), Joined::New(_)), "a lease that ran out is no death");
    assert!(world.claim(&one, &other).await);
    assert_eq!(world.membership.renew(other.generation).await.unwrap(), Renewal::Gone);
    assert!(matches!(world.join(&other, 2).await, Err(BackendError::Unavailable(_))));
    assert_eq!(world.membership.nodes().await.unwrap(), [one]);
}

#[tokio::test]
async fn a_node_that_was_found_dead_takes_no_lock_until_it_has_another_name() {
    let (redis, client, keys) = super::redis().await;
    let own = OwnName::default();
    let locks = RedisLocks::new(client.clone(), keys.clone(), own.clone());
    let world = World::over(redis, client, keys).await;
    let (one, other) = (world.node().await, world.node().await);
    own.set(other.generation);
    assert!(locks.acquire("a", "o", Duration::from_secs(9)).await.unwrap().is_some());
    world.lapse(&one, &other).await;
    assert!(world.claim(&one, &other).await);
    assert!(matches!(locks.acquire("b", "o", Duration::from_secs(9)).await, Err(BackendError::Unavailable(_))));
    own.set(one.generation);
    assert!(locks.acquire("b", "o", Duration::from_secs(9)).await.unwrap().is_some());
}

#[tokio::test]
async fn members_of_the_dead_leave_once_and_nobody_else_does() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    for number in 0..450 {
        world.join(&other, number).await.unwrap();
    }
    world.join(&one, 1000).await.unwrap();
    world.lapse(&one, &other).await;
    let (by, dead) = (one.generation, other.generation);
    assert!(world.claim(&one, &other).await);
    // One of them was listed anew, because its node came back under another name.
    let again = NodeRecord { earlier: vec![dead], ..record(Generation::random()) };
    world.membership.register(&again).await.unwrap();
    assert!(matches!(world.join(&again, 7).await.unwrap(), Joined::Anew(_)));
    let mut left = Vec::new();
    loop {
        match world.membership.leaves(by, dead).await.unwrap() {
            Leaves::Done => break,
            leaves => {
                let leaves = departed(leaves);
                let again = departed(world.membership.leaves(by, dead).await.unwrap());
                assert_eq!(leaves, again, "until they are told");
                assert!(leaves.len() <= 200, "{}", leaves.len());
                assert!(world.membership.told(by, dead, leaves.len()).await.unwrap());
                left.extend(leaves.into_iter().map(|departed| departed.joined_at));
            }
        }
    }
    left.sort_unstable();
    assert_eq!(left, (0..450).filter(|number| *number != 7).collect::<Vec<_>>());
    assert_eq!(world.members().await, 2);
    assert_eq!(world.renew(&one).await.lapsed, []);
}

#[tokio::test]
async fn who_is_listed_again_before_its_leave_is_told_did_not_leave() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    for number in 1..=3 {
        world.join(&other, number).await.unwrap();
    }
    world.lapse(&one, &other).await;
    assert!(world.claim(&one, &other).await);
    let (by, dead) = (one.generation, other.generation);
    assert_eq!(departed(world.membership.leaves(by, dead).await.unwrap()).len(), 3);
    let renamed = world.node().await;
    world.join(&renamed, 2).await.unwrap();
    let mut left = departed(world.membership.leaves(by, dead).await.unwrap());
    left.sort_unstable_by_key(|departed| departed.joined_at);
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [1, 3]);
    assert!(world.membership.told(by, dead, left.len()).await.unwrap());
    assert_eq!(world.membership.leaves(by, dead).await.unwrap(), Leaves::Done);
    assert_eq!(world.members().await, 1);
}

#[tokio::test]
async fn who_comes_back_through_another_node_after_a_death_is_listed_anew_and_does_not_leave() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    world.join(&other, 1).await.unwrap();
    world.join(&other, 2).await.unwrap();
    assert!(matches!(world.join(&one, 1).await.unwrap(), Joined::Already(_)), "its node lives");
    world.lapse(&one, &other).await;
    assert!(matches!(world.join(&one, 1).await.unwrap(), Joined::Already(_)), "a lease that ran out is no death");
    let (by, dead) = (one.generation, other.generation);
    assert!(world.claim(&one, &other).await);
    assert!(matches!(world.join(&one, 1).await.unwrap(), Joined::Anew(_)));
    let left = departed(world.membership.leaves(by, dead).await.unwrap());
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [2]);
    assert_eq!(world.members().await, 1);
}

#[tokio::test]
async fn a_reaper_that_dies_half_way_is_followed_by_another_and_changes_nothing_any_more() {
    let world = World::new().await;
    let (one, other, third) = (world.node().await, world.node().await, world.node().await);
    for number in 0..300 {
        world.join(&other, number).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while !world.renew(&one).await.lapsed.contains(&other.generation) {
        world.renew(&third).await;
        assert!(Instant::now() < deadline, "a lease that nobody renews runs out");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(world.claim(&one, &other).await);
    let begun = departed(world.membership.leaves(one.generation, other.generation).await.unwrap());
    assert!(!world.claim(&third, &other).await, "the claim is a lease");
    world.lapse(&third, &other).await;
    assert!(world.claim(&third, &other).await);
    assert_eq!(departed(world.membership.leaves(third.generation, other.generation).await.unwrap()), begun);
    assert_eq!(world.membership.leaves(one.generation, other.generation).await.unwrap(), Leaves::Lost);
    assert!(!world.membership.told(one.generation, other.generation, 200).await.unwrap());
    assert!(world.membership.told(third.generation, other.generation, begun.len()).await.unwrap());
    let rest = departed(world.membership.leaves(third.generation, other.generation).await.unwrap());
    assert_eq!(begun.len() + rest.len(), 300);
}

#[tokio::test]
async fn members_of_the_dead_are_off_the_lists_before_the_first_leave_is_told() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    for number in 0..450 {
        world.join(&other, number).await.unwrap();
    }
    world.lapse(&one, &other).await;
    assert!(world.claim(&one, &other).await);
    assert_eq!(departed(world.membership.leaves(one.generation, other.generation).await.unwrap()).len(), 200);
    assert_eq!(world.members().await, 0);
}

#[tokio::test]
async fn a_name_that_is_being_cleaned_up_after_is_not_given_again() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    world.lapse(&one, &other).await;
    assert!(world.claim(&one, &other).await);
    assert_eq!(world.membership.register(&other).await.unwrap(), None);
    assert_eq!(world.membership.renew(other.generation).await.unwrap(), Renewal::Gone);
    assert_eq!(world.membership.nodes().await.unwrap(), [one]);
}

#[tokio::test]
async fn members_that_are_listed_when_their_node_leaves_are_left_to_those_who_clean_up() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    world.join(&other, 1).await.unwrap();
    for _ in 0..2 {
        world.membership.leave(other.generation).await.unwrap(); // again, as if the answer was lost
    }
    assert_eq!(world.membership.nodes().await.unwrap(), std::slice::from_ref(&one), "it counts as gone at once");
    world.lapse(&one, &other).await;
    assert!(world.claim(&one, &other).await);
    world.membership.leave(other.generation).await.unwrap();
    let left = departed(world.membership.leaves(one.generation, other.generation).await.unwrap());
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [1]);
    assert_eq!(world.members().await, 0);
    assert_eq!(world.membership.renew(other.generation).await.unwrap(), Renewal::Gone);
}

#[tokio::test]
async fn nobody_is_reaped_on_what_was_seen_long_ago() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    world.lapse(&one, &other).await;
    let long_ago = world.renew(&one).await.now_us - 3_000_000;
    assert!(!world.membership.claim(one.generation, other.generation, long_ago).await.unwrap());
    assert!(world.claim(&one, &other).await);
}

#[tokio::test]
async fn a_lease_that_ran_out_a_moment_ago_is_no_reason_to_reap() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    let now_us = world.renew(&one).await.now_us;
    world.redis.command(&format!("ZADD phalanx:laws:leases {now_us} {}", other.generation)).await;
    assert!(!world.membership.claim(one.generation, other.generation, now_us).await.unwrap());
    world.lapse(&one, &other).await;
    assert!(world.renew(&one).await.now_us >= now_us + 500_000);
    assert!(world.claim(&one, &other).await);
}

#[tokio::test]
async fn the_dead_are_found_although_the_clock_was_set_back() {
    let world = World::new().await;
    let (one, other) = (world.node().await, world.node().await);
    let in_an_hour = world.renew(&one).await.now_us + 3_600_000_000;
    world.redis.command(&format!("ZADD phalanx:laws:leases {in_an_hour} {}", other.generation)).await;
    world.lapse(&one, &other).await;
    assert!(world.claim(&one, &other).await);
    world.redis.command(&format!("ZADD phalanx:laws:reaped {in_an_hour} {}", other.generation)).await;
    world.lapse(&one, &other).await;
}

#[tokio::test]
async fn keys_that_somebody_spoilt_are_passed_over_and_the_dead_cleaned_up_after() {
    let world = World::new().await;
    world.rooms.add("spoilt", 10).await.unwrap();
    let (one, other) = (world.node().await, world.node().await);
    world.join(&other, 1).await.unwrap();
    world.rooms.join("spoilt", &member(2), other.generation).await.unwrap();
    world.redis.command(&format!("HSET phalanx:laws:held:{} nonsense nonsense", other.generation)).await;
    for key in ["actionhero:chatRoom:members:spoilt", "phalanx:laws:nodes", "phalanx:laws:names", "phalanx:laws:epoch"]
    {
        world.redis.command(&format!("SET {key} nonsense")).await;
    }
    for key in ["names", "leaves"] {
        world.redis.command(&format!("SET phalanx:laws:{key}:{} nonsense", other.generation)).await;
    }
    for number in 0..40 {
        world.redis.command(&format!("ZADD phalanx:laws:leases {number} nonsense-{number}")).await;
        world.redis.command(&format!("ZADD phalanx:laws:reaped {number} nonsense-{number}")).await;
    }
    world.lapse(&one, &other).await;
    assert!(world.claim(&one, &other).await);
    let left = departed(world.membership.leaves(one.generation, other.generation).await.unwrap());
    assert_eq!(left.iter().map(|departed| departed.joined_at).collect::<Vec<_>>(), [1]);
    assert!(world.membership.told(one.generation, other.generation, 1).await.unwrap());
    assert_eq!(world.membership.leaves(one.generation, other.generation).await.unwrap(), Leaves::Done);
    assert!(matches!(world.membership.nodes().await, Err(BackendError::WrongKind { .. })), "that call alone fails");
}

#[tokio::test]
async fn a_redis_that_came_back_empty_has_another_life_and_no_leases() {
    let (mut redis, client, keys) = super::redis().await;
    let membership = RedisMembership::new(client, keys, Arc::new(RedisClock::default()), Spoken::default());
    let node = record(Generation::random());
    let life = membership.register(&node).await.unwrap();
    assert!(life.is_some());
    redis.kill().await;
    redis.start_again().await;
    assert!(matches!(again(&membership, &node).await, Renewal::Standing(_)));
    redis.kill().await;
    redis.start_empty().await;
    assert_eq!(again(&membership, &node).await, Renewal::Gone);
    assert_ne!(membership.register(&node).await.unwrap(), life);
}

/// The first command after a restart may find the old connection.
async fn again(membership: &RedisMembership, node: &NodeRecord) -> Renewal {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match membership.renew(node.generation).await {
            Ok(renewal) => return renewal,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}
