use std::net::Ipv4Addr;

use super::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const HOUR: Duration = Duration::from_secs(3600);

fn connections(most: usize) -> Arc<Connections> {
    Connections::new(Budgets::new(1 << 30, most), IntGauge::new("open", "connections").unwrap())
}

fn orders<const N: usize>(places: [&Place; N]) -> [Order; N] {
    places.map(|place| place.activity.order())
}

#[tokio::test]
async fn the_longest_idle_one_makes_room_and_silent_ones_first() {
    let connections = connections(3);
    let served = connections.place(LOCAL).await.unwrap();
    drop(served.activity.begin(false));
    let silent = connections.place(LOCAL).await.unwrap();
    let busy = connections.place(LOCAL).await.unwrap();
    let request = busy.activity.begin(false);
    assert!(connections.make_room(LOCAL, HOUR));
    assert_eq!(orders([&served, &silent, &busy]), [Order::Serve; 3], "none has been idle for that long");
    assert!(connections.make_room(LOCAL, Duration::ZERO));
    assert_eq!(orders([&served, &silent, &busy]), [Order::Serve, Order::Close, Order::Serve]);
    assert!(connections.make_room(LOCAL, Duration::ZERO));
    assert_eq!(orders([&served, &silent, &busy]), [Order::Close, Order::Close, Order::Serve]);
    assert!(connections.make_room(LOCAL, Duration::ZERO));
    assert_eq!(busy.activity.order(), Order::Serve);
    drop((request, silent));
    assert_eq!(connections.gauge.get(), 2);
    connections.place(LOCAL).await.unwrap();
}

#[tokio::test]
async fn who_has_more_than_its_part_makes_room_for_others_and_gets_no_more() {
    let connections = connections(4);
    let mut greedy = Vec::new();
    for _ in 0..4 {
        greedy.push(connections.place(ONE).await.unwrap());
    }
    let requests: Vec<_> = greedy.iter().map(|place| place.activity.begin(false)).collect();
    // They send their bodies, now and then.
    let waiting: Vec<_> = greedy.iter().map(|place| place.activity.bodies.begin()).collect();
    assert!(connections.make_room(ONE, HOUR), "nobody else is there");
    let all = |order| greedy.iter().filter(|place| place.activity.order() == order).count();
    assert_eq!(all(Order::Close), 0);
    assert!(connections.make_room(OTHER, HOUR));
    assert_eq!(all(Order::Close), 1);
    drop((waiting, requests));
    let closed = greedy.iter().position(|place| place.activity.order() == Order::Close).unwrap();
    drop(greedy.remove(closed));
    let other = connections.place(OTHER).await.unwrap();
    let busy: Vec<_> = greedy.iter().map(|place| place.activity.begin(false)).collect();
    assert!(connections.place(ONE).await.is_none(), "it has three of four");
    assert_eq!(orders([&other]), [Order::Serve]);
    drop(busy);
    drop(greedy);
    drop(other);
    assert!(connections.open().by_peer.is_empty());
}

#[test]
fn one_client_of_ipv6_has_many_addresses() {
    let address = |text: &str| peer(text.parse().unwrap());
    assert_eq!(address("2001:db8::1"), address("2001:db8::2:3"));
    assert_ne!(address("2001:db8:0:1::1"), address("2001:db8::1"));
    assert_eq!(address("::ffff:10.0.0.1"), ONE);
}
