//! Routes and weights.

use super::*;

const BOUNDS: Bounds = Bounds {
    body_bytes: u64::MAX,
    body_stall: Duration::from_secs(60),
    write_stall: Duration::from_secs(60),
    response_head: Duration::from_secs(60),
    response_stall: Duration::from_secs(60),
};

fn listeners() -> Vec<String> {
    vec!["http".to_owned(), "admin".to_owned()]
}

/// Apps named by their only route: `listener host path`, with `-` for every listener.
fn table(routes: &[&str]) -> Result<Table, TableError> {
    let listeners = listeners();
    let mut builder = Builder::new(&listeners);
    for route in routes {
        let mut words = route.split(' ');
        let mut word = || words.next().unwrap();
        builder.app(route, 10_000, BOUNDS)?;
        builder.slot("blue", 100, "127.0.0.1:9000", None, true)?;
        builder.route(Route {
            listener: Some(word()).filter(|l| *l != "-"),
            host: word(),
            path: word(),
        })?;
    }
    builder.build()
}

fn find(table: &Table, listener: usize, host: &str, path: &str) -> Option<String> {
    table
        .find(listener, host.as_bytes(), path.as_bytes())
        .map(|app| table.apps()[app].name.clone())
}

#[test]
fn the_most_specific_host_then_the_longest_path_wins() {
    let t = table(&[
        "- * /",
        "- a.org /",
        "- *.a.org /",
        "- *.b.a.org /x",
        "- a.org /api",
        "- a.org /api/v2",
        "- * /only",
    ])
    .unwrap();
    for (host, path, app) in [
        ("z", "/", "- * /"),
        ("a.org", "/", "- a.org /"),
        ("a.org", "/apix", "- a.org /"),
        ("a.org", "/api", "- a.org /api"),
        ("a.org", "/api/", "- a.org /api"),
        ("a.org", "/api/v1", "- a.org /api"),
        ("a.org", "/api/v2/x/y", "- a.org /api/v2"),
        ("x.a.org", "/", "- *.a.org /"),
        ("y.x.a.org", "/", "- *.a.org /"),
        ("y.b.a.org", "/x/1", "- *.b.a.org /x"),
        ("y.b.a.org", "/y", "- *.a.org /"),
        ("", "/only/this", "- * /only"),
    ] {
        assert_eq!(
            find(&t, 0, host, path).as_deref(),
            Some(app),
            "{host} {path}"
        );
    }
}

#[test]
fn a_host_without_the_path_leaves_it_to_less_specific_ones() {
    let t = table(&["- a.org /api", "- *.org /web"]).unwrap();
    assert_eq!(
        find(&t, 0, "a.org", "/web").as_deref(),
        Some("- *.org /web")
    );
    assert_eq!(find(&t, 0, "a.org", "/"), None);
    assert_eq!(find(&t, 0, "b.com", "/api"), None);
}

#[test]
fn a_listeners_own_route_wins_over_the_same_one_for_all() {
    let t = table(&["- * /", "admin * /", "public * /"]).unwrap();
    assert_eq!(find(&t, 0, "a", "/").as_deref(), Some("- * /"));
    assert_eq!(find(&t, 1, "a", "/").as_deref(), Some("admin * /"));
    assert_eq!(find(&t, 2, "a", "/"), None);
}

#[test]
fn hosts_and_paths_that_no_request_can_have_are_refused() {
    for bad in [
        "A.org", "a.org:80", "*.*.org", "a*", "", ".a", "a.", "*.", "u@a", "[::1",
    ] {
        assert!(
            matches!(
                table(&[&format!("- {bad} /")]),
                Err(TableError::Host { .. })
            ),
            "{bad:?}"
        );
    }
    for bad in ["", "a", "//", "/a//b", "/a/../b", "/%41", "/a?b"] {
        assert!(
            matches!(
                table(&[&format!("- * {bad}")]),
                Err(TableError::Path { .. })
            ),
            "{bad:?}"
        );
    }
    assert!(table(&["- [::1] /a/", "- a_b.org /"]).is_ok());
}

#[test]
fn what_is_there_twice_is_refused() {
    assert!(matches!(
        table(&["- * /", "- * /"]),
        Err(TableError::AppTwice(_))
    ));
    assert!(matches!(
        table(&["- * /a", "- * /a/"]),
        Err(TableError::RouteTwice { .. })
    ));
    let listeners = listeners();
    let mut builder = Builder::new(&listeners);
    builder.app("web", 0, BOUNDS).unwrap();
    builder.slot("blue", 100, "unix:/a", None, true).unwrap();
    assert!(matches!(
        builder.slot("blue", 0, "unix:/b", None, true),
        Err(TableError::SlotTwice { .. })
    ));
}

#[test]
fn upstreams_are_addresses_or_absolute_sockets() {
    for good in ["127.0.0.1:1", "[::1]:9000", "unix:/run/a.sock"] {
        assert_eq!(good.parse::<Upstream>().unwrap().to_string(), good);
    }
    let long = format!("unix:/{}", "a".repeat(107));
    for bad in [
        "",
        "127.0.0.1",
        "127.0.0.1:0",
        "0.0.0.0:80",
        "localhost:80",
        "unix:",
        "unix:a",
        "http://127.0.0.1:1",
        &long,
    ] {
        assert!(bad.parse::<Upstream>().is_err(), "{bad}");
    }
}

fn weighted(weights: &[u8]) -> Result<Table, TableError> {
    let listeners = listeners();
    let mut builder = Builder::new(&listeners);
    builder.app("web", 0, BOUNDS)?;
    for (i, weight) in weights.iter().enumerate() {
        builder.slot(&format!("s{i}"), *weight, "127.0.0.1:9000", None, true)?;
    }
    builder.build()
}

#[test]
fn weights_add_up_to_a_hundred_or_to_nothing() {
    assert!(weighted(&[100, 0]).is_ok() && weighted(&[0, 0]).is_ok() && weighted(&[]).is_ok());
    for bad in [&[99][..], &[100, 1], &[1], &[200, 156]] {
        assert!(
            matches!(weighted(bad), Err(TableError::Weights { .. })),
            "{bad:?}"
        );
    }
    assert_eq!(weighted(&[0, 0]).unwrap().apps()[0].pick(7), None);
}

#[test]
fn shares_are_exact_over_any_hundred_and_nowhere_far_off() {
    let table = weighted(&[5, 70, 0, 25]).unwrap();
    let app = &table.apps()[0];
    for start in [0, 17, 99, u32::MAX - 250] {
        let count = |n: u32, slot| (0..n).filter(|i| app.pick(start + i) == Some(slot)).count();
        assert_eq!(
            [count(100, 0), count(100, 1), count(100, 2), count(100, 3)],
            [5, 70, 0, 25]
        );
        assert!((1..=5).contains(&count(10, 3)));
    }
}

#[test]
fn ten_thousand_routes_are_found() {
    let routes: Vec<String> = (0..1000)
        .flat_map(|a| (0..10).map(move |r| format!("- h{a}.org /r{r}")))
        .collect();
    let t = table(&routes.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!(
        find(&t, 0, "h999.org", "/r9/deep/path").as_deref(),
        Some("- h999.org /r9")
    );
}

#[test]
fn prefixes_are_found_under_paths_of_any_depth() {
    let t = table(&["- * /", "- * /a", "- * /a/b"]).unwrap();
    let deep = |start: &str| format!("{start}{}", "/x".repeat(4000));
    for (path, app) in [
        (deep("/a/b"), "- * /a/b"),
        (deep("/a"), "- * /a"),
        (deep(""), "- * /"),
        (deep("/a/bc"), "- * /a"),
        ("/aaaaaaaa".into(), "- * /"),
    ] {
        assert_eq!(find(&t, 0, "h", &path).as_deref(), Some(app));
    }
}

#[test]
fn of_any_ten_thousand_requests_in_a_row_each_slot_has_its_share_to_within_a_hundredth() {
    const OVER: u32 = 10_000;
    for weights in [[69, 30, 1], [99, 1, 0], [34, 33, 33]] {
        let listeners = listeners();
        let mut builder = Builder::new(&listeners);
        builder.app("web", 10_000, BOUNDS).unwrap();
        for (name, weight) in ["blue", "green", "canary"].into_iter().zip(weights) {
            builder
                .slot(name, weight, "127.0.0.1:9000", None, true)
                .unwrap();
        }
        let table = builder.build().unwrap();
        let app = &table.apps()[0];
        // Also where the tickets begin anew.
        let first = u32::MAX - 2 * OVER;
        let ticket = |number: u32| first.wrapping_add(number);
        let mut had = [0_i64; 3];
        for number in 0..4 * OVER {
            had[app.pick(ticket(number)).unwrap()] += 1;
            if number < OVER {
                continue;
            }
            had[app.pick(ticket(number - OVER)).unwrap()] -= 1;
            for (had, weight) in had.iter().zip(weights) {
                let wanted = i64::from(OVER) * i64::from(weight) / 100;
                assert!(
                    (had - wanted).abs() <= i64::from(OVER) / 100,
                    "{weights:?} at {number}"
                );
            }
        }
    }
}
