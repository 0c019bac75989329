//! An app's units as a generator has left them, against what the app's file makes: they are apart where one was read without the other.
//!
//! **Invariant:** only looked at; a unit that cannot be read is one that is not there.

use std::fs;
use std::path::Path;

use super::{
    UnitFile, fetch_service, hook_service, notify_service, setup_service, stage_service,
    watch_service,
};
use crate::deploy::AppName;

/// Where generators write (systemd.generator(7)), and PID 1 reads at the same daemon-reload.
pub const GENERATED: &str = "/run/systemd/generator";

/// The files that differ from those that were `made` of an app's file, and those that are there without having been made, by their paths.
#[must_use]
pub fn differing(app: &AppName, made: &[UnitFile], generated: &Path) -> Vec<String> {
    let differs = made.iter().filter(|file| {
        fs::read_to_string(generated.join(&file.path)).ok().as_ref() != Some(&file.text)
    });
    let is_made = |path: &String| made.iter().any(|file| file.path == *path);
    let mut left = sometimes(app);
    left.retain(|path| !is_made(path) && generated.join(path).exists());
    let differs = differs.map(|file| file.path.clone());
    differs.chain(left).collect()
}

/// What is made of some apps' files and not of others'.
fn sometimes(app: &AppName) -> Vec<String> {
    let services = [
        setup_service(app),
        fetch_service(app),
        stage_service(app),
        hook_service(app),
        notify_service(app),
        watch_service(app),
    ];
    let drop_ins = services.map(|unit| format!("{unit}.d/10-slot.conf"));
    let triggers = ["timer", "path"].map(|kind| format!("slot-watch@{app}.{kind}"));
    drop_ins.into_iter().chain(triggers).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{generate, render};
    use super::*;
    use crate::config::App;

    /// A file in which everything is that only some have.
    const FULL: &str = "name = 'web'\n\
        command = './server'\n\
        setup_command = './build'\n\
        [ports]\n\
        blue = 20001\n\
        green = 20002\n\
        [auto]\n\
        watch = 'path'\n\
        path = '/srv/drop'\n\
        user = 'nobody'\n\
        [hooks]\n\
        after_switch = './told'\n\
        [[notices]]\n\
        url = 'https://example.org/'\n";

    const PLAIN: &str =
        "name = 'web'\ncommand = './server'\n[ports]\nblue = 20001\ngreen = 20002\n";

    struct Bench {
        place: tempfile::TempDir,
        file: PathBuf,
    }

    impl Bench {
        /// What a generator makes of a file.
        fn generated(text: &str) -> Self {
            let place = tempfile::tempdir().unwrap();
            let (apps, rules) = (place.path().join("apps"), place.path().join("rules"));
            fs::create_dir(&apps).unwrap();
            let file = apps.join("web.toml");
            fs::write(&file, text).unwrap();
            let generated = place.path().join("generator");
            assert!(generate(&apps, &rules, &generated).unwrap().is_empty());
            Self { place, file }
        }

        /// Against another.
        fn against(&self, text: &str) -> Vec<String> {
            let app = App::parse(text, "web.toml").unwrap();
            let made = render(&app, &self.file);
            differing(&app.name, &made, &self.place.path().join("generator"))
        }
    }

    #[test]
    fn units_are_apart_only_where_the_file_says_something_else_of_them() {
        let bench = Bench::generated(PLAIN);
        assert!(bench.against(PLAIN).is_empty());
        let hosts = format!("hosts = ['example.org']\n{PLAIN}");
        assert!(bench.against(&hosts).is_empty(), "no unit has those");
        let other = PLAIN.replace("./server", "./other");
        assert_eq!(bench.against(&other), ["web@.service"]);
        let moved = PLAIN.replace("20002", "20003");
        assert_eq!(bench.against(&moved), ["web@green.service.d/10-slot.conf"]);
    }

    #[test]
    fn what_a_file_does_not_ask_for_any_more_is_apart_too() {
        let bench = Bench::generated(FULL);
        assert!(bench.against(FULL).is_empty());
        let left = bench.against(PLAIN);
        let wanted = [
            "slot-setup@web.service.d/10-slot.conf",
            "slot-hook@web.service.d/10-slot.conf",
            "slot-notify@web.service.d/10-slot.conf",
            "slot-watch@web.service.d/10-slot.conf",
            "slot-watch@web.timer",
            "slot-watch@web.path",
        ];
        assert_eq!(left, wanted);
    }
}
