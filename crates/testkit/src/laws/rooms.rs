//! Laws of rooms and their members.

use std::sync::Arc;

use phalanx_core::backend::{Added, Joined, Member, RoomStore};
use phalanx_core::{ConnectionId, Generation};
use tokio::task::JoinSet;

/// Makes a test of each law of rooms: `room_laws!(memory: make())`.
#[macro_export]
macro_rules! room_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            rooms,
            $backend,
            $make,
            [
                a_room_exists_from_add_to_remove,
                there_are_no_more_rooms_than_may_be,
                a_member_joins_once_and_leaves_once,
                a_leave_of_an_earlier_membership_changes_nothing,
                members_are_listed_up_to_a_number_and_all_counted,
                a_room_that_is_removed_forgets_its_members,
                nobody_who_joins_at_once_is_lost,
            ]
        );
    };
}

type Store = Arc<dyn RoomStore>;

fn member(number: u64) -> Member {
    let id = ConnectionId::parse(&format!("AAAAAAAAAA-{number}")).expect("letters and digits");
    Member { id, joined_at: 1000 + number }
}

fn node() -> Generation {
    Generation::parse("aaaaaaaaaa").expect("ten characters of base32")
}

async fn add(store: &Store, room: &str) {
    assert_eq!(store.add(room, 1000).await.expect("the backend answers"), Added::New);
}

/// And is listed meanwhile.
pub async fn a_room_exists_from_add_to_remove(store: Store) {
    assert!(!store.exists("r").await.expect("the backend answers"));
    add(&store, "r").await;
    assert_eq!(store.add("r", 1000).await.expect("the backend answers"), Added::Existing);
    assert!(store.exists("r").await.expect("the backend answers"));
    assert_eq!(store.list().await.expect("the backend answers"), ["r"]);
    assert!(store.remove("r").await.expect("the backend answers"));
    assert!(!store.remove("r").await.expect("the backend answers"));
    assert_eq!(store.members("r", 10).await.expect("the backend answers"), None);
}

/// One that exists is still found to.
pub async fn there_are_no_more_rooms_than_may_be(store: Store) {
    assert_eq!(store.add("a", 2).await.expect("the backend answers"), Added::New);
    assert_eq!(store.add("b", 2).await.expect("the backend answers"), Added::New);
    assert_eq!(store.add("c", 2).await.expect("the backend answers"), Added::Full);
    assert_eq!(store.add("a", 2).await.expect("the backend answers"), Added::Existing);
}

/// And not at all without the room.
pub async fn a_member_joins_once_and_leaves_once(store: Store) {
    let one = member(1);
    assert_eq!(store.join("r", &one, node()).await.expect("the backend answers"), Joined::NoRoom);
    add(&store, "r").await;
    assert_eq!(store.join("r", &one, node()).await.expect("the backend answers"), Joined::New);
    assert_eq!(store.join("r", &one, node()).await.expect("the backend answers"), Joined::Already);
    assert!(store.leave("r", &one, node()).await.expect("the backend answers"));
    assert!(!store.leave("r", &one, node()).await.expect("the backend answers"));
    assert!(!store.leave("nowhere", &one, node()).await.expect("the backend answers"));
}

/// It may arrive late, because its backend was away.
pub async fn a_leave_of_an_earlier_membership_changes_nothing(store: Store) {
    add(&store, "r").await;
    let (earlier, later) = (member(1), Member { joined_at: 2000, ..member(1) });
    store.join("r", &later, node()).await.expect("the backend answers");
    assert!(!store.leave("r", &earlier, node()).await.expect("the backend answers"));
    assert!(store.leave("r", &later, node()).await.expect("the backend answers"));
}

/// With the time at which each joined.
pub async fn members_are_listed_up_to_a_number_and_all_counted(store: Store) {
    add(&store, "r").await;
    for number in 0..10 {
        store.join("r", &member(number), node()).await.expect("the backend answers");
    }
    let some = store.members("r", 3).await.expect("the backend answers").expect("the room exists");
    assert_eq!((some.listed.len(), some.count), (3, 10));
    let mut all = store.members("r", 100).await.expect("the backend answers").expect("the room exists").listed;
    all.sort_by_key(|member| member.joined_at);
    assert_eq!(all, (0..10).map(member).collect::<Vec<_>>());
}

/// A new one of its name is empty.
pub async fn a_room_that_is_removed_forgets_its_members(store: Store) {
    add(&store, "r").await;
    store.join("r", &member(1), node()).await.expect("the backend answers");
    store.remove("r").await.expect("the backend answers");
    add(&store, "r").await;
    assert_eq!(store.members("r", 10).await.expect("the backend answers").expect("the room exists").count, 0);
}

/// However many come.
pub async fn nobody_who_joins_at_once_is_lost(store: Store) {
    add(&store, "r").await;
    let mut joining = JoinSet::new();
    for number in 0..100 {
        let store = store.clone();
        joining.spawn(async move { store.join("r", &member(number), node()).await.expect("the backend answers") });
    }
    assert!(joining.join_all().await.into_iter().all(|joined| joined == Joined::New));
    assert_eq!(store.members("r", 1).await.expect("the backend answers").expect("the room exists").count, 100);
}
