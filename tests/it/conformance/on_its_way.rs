//! Ops on keys whose slot a cluster is moving: those that are still here, and those that are not.

use super::*;
use crate::support::Cluster;

/// A store on a cluster that is moving the slots of `keys`, none of which has moved yet.
async fn moving(cluster: &Cluster, keys: &[&Key]) {
    for key in keys {
        let question = ["CLUSTER", "KEYSLOT", key.as_str()];
        let answer = cluster.nodes()[0].cli(&question).await;
        let slot: u16 = redis::from_redis_value(answer).unwrap();
        let owner = cluster.owner(slot).await;
        let mut others = cluster.nodes()[..3].iter();
        let to = others.find(|node| node.port() != owner.port()).unwrap();
        cluster.begin_to_move(slot, to).await;
    }
}

async fn connected(cluster: &Cluster) -> RedisStore {
    let store = RedisStore::cluster(&cluster.urls(), patient()).expect("addresses");
    store.ready().await.expect("connections");
    store
}

#[tokio::test]
async fn a_script_that_empties_its_key_on_the_way_is_carried_out_whole() {
    let cluster = Cluster::start().await;
    let store = connected(&cluster).await;
    let keys = ["fenced", "sealed", "filled", "named", "settled"].map(key);
    let [fenced, sealed, filled, named, settled] = &keys;
    let (one, other) = (Token::random(), Token::random());
    for writer in [one, other] {
        fence(&store, fenced, writer, LONG).await;
    }
    put(&store, sealed, A, "outdated", LONG).await;
    acquire(&store, filled, A, one).await;
    fence(&store, named, one, SHORT).await;
    put(&store, settled, A, "value", LONG).await;
    moving(&cluster, &keys.each_ref()).await;

    settle(&store, fenced, one).await;
    assert_eq!(acquire(&store, fenced, A, one).await, Acquired::Fenced);
    settle(&store, fenced, other).await;
    assert_eq!(acquire(&store, fenced, A, one).await, Acquired::Granted);

    let seen = seal(b"outdated");
    let granted = acquire_seen(&store, sealed, one, seen).await;
    assert_eq!(granted, Acquired::Granted);
    assert_eq!(fill(&store, sealed, A, one, "new").await, Filled::Stored);
    assert_eq!(read(&store, sealed, A).await, Some("new".into()));

    assert_eq!(fill(&store, filled, A, one, "new").await, Filled::Stored);
    fence(&store, filled, one, LONG).await;
    assert_eq!(acquire(&store, filled, A, one).await, Acquired::Fenced);

    let fresh = Token::random();
    tokio::time::timeout(PATIENCE, async {
        while generation(&store, named, fresh).await != Some(fresh) {
            tokio::time::sleep(SHORT / 4).await;
        }
    })
    .await
    .expect("the fence expires");

    settle(&store, settled, one).await;
    assert_eq!(read(&store, settled, A).await, None);
    assert_eq!(acquire(&store, settled, A, one).await, Acquired::Granted);
}

#[tokio::test]
async fn a_batch_over_moving_and_resting_slots_is_answered_in_order() {
    let cluster = Cluster::start().await;
    let store = connected(&cluster).await;
    let keys: Vec<Key> = (0..40).map(|n| key(&n.to_string())).collect();
    for (at, key) in keys.iter().enumerate().step_by(2) {
        put(&store, key, A, &at.to_string(), LONG).await;
    }
    let some: Vec<&Key> = keys.iter().take(20).collect();
    moving(&cluster, &some).await;
    let batch = keys.iter().map(|key| read_op(key, A)).collect();
    let value = |at: usize| at.is_multiple_of(2).then(|| at.to_string().into());
    let expected: Vec<Reply> = (0..40).map(|at| Reply::Value(value(at))).collect();
    assert_eq!(run(&store, batch).await, expected);

    let lease = Token::random();
    let acquires = keys.iter().map(|key| acquire_op(key, A, lease, LONG));
    let replies = run(&store, acquires.collect()).await;
    for (at, reply) in replies.into_iter().enumerate() {
        let expected = value(at).map_or(Acquired::Granted, Acquired::Value);
        assert_eq!(acquired(reply), expected, "{at}");
    }
}
