//! How long it takes to find the slot for a request, by how many apps there are: `cargo bench --bench pick`.

use std::hint::black_box;
use std::time::Instant;

use slot::router::Limits;
use slot::router::table::{Builder, Route, Table, TableError};

const ROUTES: usize = 10;
const PICKS: u32 = 2_000_000;

/// `count` apps, each with a host of its own and ten paths on it.
fn table(count: usize) -> Result<Table, TableError> {
    let listeners = ["http".to_owned()];
    let names: Vec<_> = (0..count).map(|n| format!("app{n}.example.org")).collect();
    let paths: Vec<_> = (1..ROUTES).map(|n| format!("/part{n}/api")).collect();
    let bounds = Limits::default().of(&Default::default());
    let mut builder = Builder::new(&listeners);
    for host in &names {
        builder.app(host, 0, bounds)?;
        builder.slot("blue", 90, "127.0.0.1:9001", None, true)?;
        builder.slot("green", 10, "127.0.0.1:9002", None, true)?;
        for path in std::iter::once("/").chain(paths.iter().map(String::as_str)) {
            let listener = None;
            builder.route(Route {
                listener,
                host,
                path,
            })?;
        }
    }
    builder.build()
}

fn main() -> Result<(), TableError> {
    for count in [1, 10, 100, 1000] {
        let table = table(count)?;
        // In an order that is not that of the table, with paths of two routes and of none but the host's.
        let asked: Vec<_> = (0..count.max(64))
            .map(|n| format!("app{}.example.org", n * 7919 % count))
            .collect();
        let paths = [&b"/part3/api/users/17"[..], b"/index.html", b"/part9/api"];
        let begun = Instant::now();
        for ticket in 0..PICKS {
            let host = &asked[ticket as usize % asked.len()];
            let app = table.find(0, black_box(host.as_bytes()), paths[ticket as usize % 3]);
            let slot = app.and_then(|app| table.apps()[app].pick(ticket));
            black_box(slot);
        }
        let each = begun.elapsed().as_nanos() / u128::from(PICKS);
        println!("{count:5} apps with {ROUTES} routes each: {each} ns to pick a slot");
    }
    Ok(())
}
