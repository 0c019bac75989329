//! Placeholder: `slotctl launch` alone.
fn main() {
    let mut arguments = std::env::args().skip(1);
    let option = |name: &str| {
        let mut all = std::env::args().skip_while(|word| word != name);
        all.nth(1)
    };
    if arguments.next().as_deref() != Some("launch") {
        return;
    }
    let request = slot::cli::launch::Request {
        app: option("--app")
            .and_then(|name| name.parse().ok())
            .expect("--app"),
        slot: option("--slot")
            .and_then(|name| name.parse().ok())
            .expect("--slot"),
        root: option("--root").expect("--root").into(),
        env_file: option("--env-file").map(Into::into),
        command: std::env::args()
            .skip_while(|word| word != "--")
            .skip(1)
            .collect(),
    };
    let Err(failure) = slot::cli::launch::launch(&request);
    eprintln!("slotctl: {:#}", failure.error);
    std::process::exit(i32::from(failure.code));
}
