//! Laws of rooms and their members.

use std::sync::Arc;

use phalanx_core::backend::{Added, Joined, Left, Member, RoomStore};
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
                what_its_own_node_lists_again_is_listed_anew,
                a_member_of_another_node_that_lives_stays,
                a_leave_of_an_earlier_membership_changes_nothing,
                members_are_listed_up_to_a_number_and_all_counted,
                a_room_that_is_closed_has_the_same_life_until_it_is_forgotten,
                the_next_room_of_a_name_has_another_life_and_no_members,
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

/// The nodes of the laws, which must be alive.
pub fn node() -> Generation {
    Generation::parse("aaaaaaaaaa").expect("ten characters of base32")
}

/// And the other one.
pub fn neighbour() -> Generation {
    Generation::parse("bbbbbbbbbb").expect("ten characters of base32")
}

async fn join(store: &Store, member: &Member) -> Joined {
    store.join("r", member, node()).await.expect("the backend answers")
}

async fn leave(store: &Store, room: &str, member: &Member) -> Left {
    store.leave(room, member, node()).await.expect("the backend answers")
}

async fn listed(store: &Store) -> Vec<Member> {
    store.members("r", 10).await.expect("the backend answers").expect("the room exists").listed
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
    assert!(store.close("r").await.expect("the backend answers").is_some());
    assert!(!store.exists("r").await.expect("the backend answers"));
    assert_eq!(store.list().await.expect("the backend answers"), [""; 0]);
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
    let Joined::New(life) = join(&store, &one).await else { panic!("nobody was in it") };
    assert_eq!(leave(&store, "r", &one).await, Left::Now);
    assert_eq!(leave(&store, "r", &one).await, Left::Before(Some(life)));
    assert_eq!(leave(&store, "nowhere", &one).await, Left::Before(None));
    store.close("r").await.expect("the backend answers");
    assert_eq!(leave(&store, "r", &one).await, Left::Before(None));
}

/// It may arrive late, because its backend was away.
pub async fn a_leave_of_an_earlier_membership_changes_nothing(store: Store) {
    add(&store, "r").await;
    let (earlier, later) = (member(1), Member { joined_at: 2000, ..member(1) });
    store.join("r", &later, node()).await.expect("the backend answers");
    assert!(matches!(leave(&store, "r", &earlier).await, Left::Before(Some(_))));
    assert_eq!(leave(&store, "r", &later).await, Left::Now);
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

/// So that destroying it may be repeated.
pub async fn a_room_that_is_closed_has_the_same_life_until_it_is_forgotten(store: Store) {
    assert_eq!(store.close("r").await.expect("the backend answers"), None);
    add(&store, "r").await;
    let Joined::New(life) = join(&store, &member(1)).await else { panic!("nobody was in it") };
    for _ in 0..2 {
        assert_eq!(store.close("r").await.expect("the backend answers"), Some(life));
        assert_eq!(join(&store, &member(2)).await, Joined::NoRoom);
        assert_eq!(store.members("r", 10).await.expect("the backend answers"), None);
    }
    store.forget("r", life + 1).await.expect("the backend answers");
    assert_eq!(store.close("r").await.expect("the backend answers"), Some(life));
    store.forget("r", life).await.expect("the backend answers");
    assert_eq!(store.close("r").await.expect("the backend answers"), None);
}

/// Also while the last one is not forgotten, and when it is forgotten late.
pub async fn the_next_room_of_a_name_has_another_life_and_no_members(store: Store) {
    add(&store, "r").await;
    let Joined::New(first) = join(&store, &member(1)).await else { panic!("nobody was in it") };
    assert_eq!(store.close("r").await.expect("the backend answers"), Some(first));
    add(&store, "r").await;
    assert_eq!(listed(&store).await, []);
    let Joined::New(second) = join(&store, &member(1)).await else { panic!("nobody was in it") };
    assert_ne!(first, second);
    store.forget("r", first).await.expect("the backend answers");
    assert_eq!(listed(&store).await, [member(1)]);
    assert_eq!(store.close("r").await.expect("the backend answers"), Some(second));
}

/// Whether it does not know that it listed it, or listed it under another name.
pub async fn what_its_own_node_lists_again_is_listed_anew(store: Store) {
    add(&store, "r").await;
    let Joined::New(life) = join(&store, &member(1)).await else { panic!("nobody was in it") };
    let later = Member { joined_at: 2000, ..member(1) };
    assert_eq!(join(&store, &later).await, Joined::Anew(life));
    assert_eq!(listed(&store).await, [later]);
}

/// Its id is one that the application gave.
pub async fn a_member_of_another_node_that_lives_stays(store: Store) {
    add(&store, "r").await;
    let Joined::New(life) = join(&store, &member(1)).await else { panic!("nobody was in it") };
    let later = Member { joined_at: 2000, ..member(1) };
    assert_eq!(store.join("r", &later, neighbour()).await.expect("the backend answers"), Joined::Already(life));
    assert_eq!(listed(&store).await, [member(1)]);
}

/// However many come.
pub async fn nobody_who_joins_at_once_is_lost(store: Store) {
    add(&store, "r").await;
    let mut joining = JoinSet::new();
    for number in 0..100 {
        let store = store.clone();
        joining.spawn(async move { store.join("r", &member(number), node()).await.expect("the backend answers") });
    }
    assert!(joining.join_all().await.into_iter().all(|joined| matches!(joined, Joined::New(_))));
    assert_eq!(store.members("r", 1).await.expect("the backend answers").expect("the room exists").count, 100);
}
