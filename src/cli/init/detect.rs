//! What a project is made with, by the files that it has: what makes it ready, and what starts it.
//!
//! The order is that of slot-machine for what that knows (Bun, npm, uv, Bundler); a lock file says more than a Procfile, which says more
//! than a binary that lies about.
//!
//! **Invariant:** nothing is read here: who calls has listed the directory, and read [`READ`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The files whose text says how a project is started.
pub(super) const READ: [&str; 4] = ["package.json", "Procfile", "Cargo.toml", "pyproject.toml"];

/// A project's directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Project {
    /// The names in it, and those of the directories in its `cmd`, where Go keeps programs, as `cmd/<name>`.
    pub names: BTreeSet<String>,
    /// The text of those in [`READ`] that there are.
    pub texts: BTreeMap<&'static str, String>,
    /// The one program that a build seems to have made, relative to the directory: `./build/server`.
    pub built: Option<String>,
}

/// What a project is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Detected {
    /// For people.
    pub with: &'static str,
    /// `npm ci`: makes a release ready; none where there is nothing to do.
    pub setup: Option<String>,
    /// `node server.js`: a line as a shell takes it.
    pub start: String,
    /// Why the program in it is only guessed: `cmd has api, worker`.
    pub guess: Option<String>,
}

/// By a lock file: its names, what it is of, and what is then known.
type Kind = (
    &'static [&'static str],
    &'static str,
    fn(&Project) -> (&'static str, String),
);

const KINDS: [Kind; 9] = [
    (&["bun.lock", "bun.lockb"], "Bun", |project| {
        ("bun install --frozen-lockfile", project.script("bun"))
    }),
    (&["package-lock.json"], "npm", |project| {
        ("npm ci", project.script("node"))
    }),
    (&["uv.lock"], "uv", |project| {
        ("uv sync --frozen", project.python("uv run "))
    }),
    (&["Gemfile.lock"], "Bundler", |project| {
        ("bundle install", project.ruby())
    }),
    (&["pnpm-lock.yaml"], "pnpm", |project| {
        ("pnpm install --frozen-lockfile", project.script("node"))
    }),
    (&["yarn.lock"], "Yarn", |project| {
        // Of the two that are called Yarn, the newer one has a file of settings, and another word for it.
        let setup = if project.has(".yarnrc.yml") {
            "yarn install --immutable"
        } else {
            "yarn install --frozen-lockfile"
        };
        (setup, project.script("node"))
    }),
    (&["poetry.lock"], "Poetry", |project| {
        (
            "poetry install --no-interaction",
            project.python("poetry run "),
        )
    }),
    (&["go.mod"], "Go", Project::go),
    (&["Cargo.toml"], "Cargo", |project| {
        ("cargo build --release --locked", project.cargo())
    }),
];

/// What a project is made with; none if nothing says so.
pub(super) fn detect(project: &Project) -> Option<Detected> {
    let by_lock = KINDS
        .iter()
        .find(|(names, ..)| names.iter().any(|name| project.has(name)));
    if let Some((_, with, how)) = by_lock {
        let (setup, start) = how(project);
        return Some(Detected {
            with,
            setup: Some(setup.to_owned()),
            start,
            guess: project.guess(with),
        });
    }
    let plain = |with, start| Detected {
        with,
        setup: None,
        start,
        guess: None,
    };
    if let Some(start) = project.procfile() {
        return Some(plain("a Procfile", start));
    }
    if project.has("package.json") {
        return Some(plain("Node.js", project.script("node")));
    }
    let built = project.built.as_ref()?;
    Some(plain("a binary", shell_words::quote(built).into_owned()))
}

impl Project {
    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// The `web` line of a Procfile.
    fn procfile(&self) -> Option<String> {
        let lines = self.text("Procfile")?.lines();
        let web = lines.filter_map(|line| line.trim().strip_prefix("web:"));
        web.map(|line| line.trim().to_owned())
            .find(|line| !line.is_empty())
    }

    /// `scripts.start` of package.json, else its `main`, else index.js.
    fn script(&self, runtime: &str) -> String {
        let package: Value = self
            .text("package.json")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let said = |value: &Value| {
            let text = value.as_str().map(str::trim)?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        if let Some(script) = said(&package["scripts"]["start"]) {
            // npm and its like look for a script's first word among the dependencies' programs; nobody else does.
            let first = script.split_whitespace().next().unwrap_or_default();
            let installed = ["dependencies", "devDependencies"]
                .iter()
                .any(|kind| package[kind].get(first).is_some());
            return match installed {
                true => format!("./node_modules/.bin/{script}"),
                false => script,
            };
        }
        let main = said(&package["main"]);
        format!("{runtime} {}", main.as_deref().unwrap_or("index.js"))
    }

    /// What a Procfile says, else the usual file; app.py, if there is none.
    fn python(&self, run: &str) -> String {
        if let Some(line) = self.procfile() {
            return if line.starts_with(run) {
                line
            } else {
                format!("{run}{line}")
            };
        }
        let file = ["app.py", "main.py", "server.py", "wsgi.py"]
            .into_iter()
            .find(|name| self.has(name));
        format!("{run}python {}", file.unwrap_or("app.py"))
    }

    /// What a Procfile says, else Rack's file, else app.rb.
    fn ruby(&self) -> String {
        if let Some(line) = self.procfile() {
            return line;
        }
        if self.has("config.ru") {
            return "bundle exec rackup --host 127.0.0.1 --port $PORT".to_owned();
        }
        "bundle exec ruby app.rb".to_owned()
    }

    /// Go's programs in `cmd`, where a `main` package is by convention if it is not in the directory itself.
    fn programs(&self) -> Vec<&str> {
        if self.has("main.go") {
            return Vec::new();
        }
        let names = self.names.iter();
        names.filter_map(|name| name.strip_prefix("cmd/")).collect()
    }

    fn go(&self) -> (&'static str, String) {
        let programs = self.programs();
        let usual = programs.iter().find(|name| **name == "server");
        match usual.or(programs.first()) {
            // Built whatever their names.
            Some(program) => ("go build -o ./bin/ ./cmd/...", format!("./bin/{program}")),
            None => ("go build -o ./bin/server .", "./bin/server".to_owned()),
        }
    }

    /// Why nobody can tell which of the programs that are built is the app.
    fn guess(&self, with: &str) -> Option<String> {
        match with {
            "Go" => {
                let programs = self.programs();
                (programs.len() > 1).then(|| format!("cmd has {}", programs.join(", ")))
            }
            "Cargo" => {
                let manifest = self.manifest();
                let package = manifest.get("package");
                let bins = manifest.get("bin").and_then(toml::Value::as_array);
                if package.is_none() {
                    Some("Cargo.toml is of a workspace, and names no program".to_owned())
                } else if package.is_some_and(|it| it.get("default-run").is_some()) {
                    None
                } else {
                    let many = bins.is_some_and(|bins| bins.len() > 1);
                    many.then(|| "Cargo.toml has several programs and no default-run".to_owned())
                }
            }
            _ => None,
        }
    }

    fn manifest(&self) -> toml::Table {
        self.text("Cargo.toml")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    fn cargo(&self) -> String {
        let manifest = self.manifest();
        let name = |table: &toml::Table, key: &str| {
            let name = table.get(key).and_then(toml::Value::as_str);
            name.map(ToOwned::to_owned)
        };
        let package = manifest.get("package").and_then(toml::Value::as_table);
        let bins = manifest.get("bin").and_then(toml::Value::as_array);
        let first = bins
            .and_then(|bins| bins.first())
            .and_then(toml::Value::as_table);
        let program = package
            .and_then(|package| name(package, "default-run"))
            .or_else(|| name(first?, "name"))
            .or_else(|| name(package?, "name"));
        format!(
            "./target/release/{}",
            program.as_deref().unwrap_or("server")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, those in [`READ`] with a text after a space.
    fn project(files: &[&str]) -> Project {
        let mut project = Project::default();
        for file in files {
            let (name, text) = file.split_once(' ').unwrap_or((file, ""));
            project.names.insert(name.to_owned());
            if let Some(name) = READ.iter().find(|known| **known == name) {
                project.texts.insert(name, text.to_owned());
            }
        }
        project
    }

    fn found(files: &[&str]) -> (String, String) {
        let found = detect(&project(files)).unwrap();
        (found.setup.unwrap_or_default(), found.start)
    }

    #[test]
    fn each_kind_is_known_by_its_file() {
        for (files, setup, start) in [
            (
                &["bun.lock"][..],
                "bun install --frozen-lockfile",
                "bun index.js",
            ),
            (
                &["bun.lockb"],
                "bun install --frozen-lockfile",
                "bun index.js",
            ),
            (&["package-lock.json"], "npm ci", "node index.js"),
            (&["uv.lock"], "uv sync --frozen", "uv run python app.py"),
            (
                &["uv.lock", "main.py"],
                "uv sync --frozen",
                "uv run python main.py",
            ),
            (
                &["Gemfile.lock"],
                "bundle install",
                "bundle exec ruby app.rb",
            ),
            (
                &["Gemfile.lock", "config.ru"],
                "bundle install",
                "bundle exec rackup --host 127.0.0.1 --port $PORT",
            ),
            (
                &["pnpm-lock.yaml"],
                "pnpm install --frozen-lockfile",
                "node index.js",
            ),
            (
                &["yarn.lock"],
                "yarn install --frozen-lockfile",
                "node index.js",
            ),
            (
                &["yarn.lock", ".yarnrc.yml"],
                "yarn install --immutable",
                "node index.js",
            ),
            (
                &["poetry.lock"],
                "poetry install --no-interaction",
                "poetry run python app.py",
            ),
            (
                &["go.mod", "main.go"],
                "go build -o ./bin/server .",
                "./bin/server",
            ),
            (
                &["go.mod", "cmd/shop"],
                "go build -o ./bin/ ./cmd/...",
                "./bin/shop",
            ),
            (
                &["Cargo.toml [package]\nname = \"shop\"\n"],
                "cargo build --release --locked",
                "./target/release/shop",
            ),
            (
                &["Cargo.toml [package]\nname = \"shop\"\ndefault-run = \"shopd\"\n"],
                "cargo build --release --locked",
                "./target/release/shopd",
            ),
            (
                &["Cargo.toml [package]\nname = \"shop\"\n[[bin]]\nname = \"shopd\"\n"],
                "cargo build --release --locked",
                "./target/release/shopd",
            ),
            (
                &["Procfile worker: ./w\nweb: ./serve --port $PORT\n"],
                "",
                "./serve --port $PORT",
            ),
            (&["package.json {\"main\":\"app.js\"}"], "", "node app.js"),
        ] {
            assert_eq!(
                found(files),
                (setup.to_owned(), start.to_owned()),
                "{files:?}"
            );
        }
    }

    #[test]
    fn a_program_is_called_a_guess_where_there_could_be_another() {
        for (files, start, why) in [
            (
                &["go.mod", "cmd/api", "cmd/worker"][..],
                "./bin/api",
                "cmd has api, worker",
            ),
            (
                &["go.mod", "cmd/api", "cmd/server"],
                "./bin/server",
                "cmd has api, server",
            ),
            (
                &["Cargo.toml [workspace]\nmembers = [\"a\"]\n"],
                "./target/release/server",
                "Cargo.toml is of a workspace, and names no program",
            ),
            (
                &[
                    "Cargo.toml [package]\nname = \"x\"\n[[bin]]\nname = \"a\"\n[[bin]]\nname = \"b\"\n",
                ],
                "./target/release/a",
                "Cargo.toml has several programs and no default-run",
            ),
        ] {
            let found = detect(&project(files)).unwrap();
            assert_eq!(
                (found.start.as_str(), found.guess.as_deref()),
                (start, Some(why)),
                "{files:?}"
            );
        }
        for files in [
            &["go.mod", "cmd/shop"][..],
            &["go.mod", "main.go", "cmd/a", "cmd/b"],
            &["Cargo.toml [package]\nname = \"shop\"\n"],
            &["package-lock.json"],
        ] {
            assert_eq!(detect(&project(files)).unwrap().guess, None, "{files:?}");
        }
    }

    #[test]
    fn of_several_the_first_in_order_counts() {
        let order = [
            "bun.lock",
            "package-lock.json",
            "uv.lock",
            "Gemfile.lock",
            "pnpm-lock.yaml",
            "yarn.lock",
            "poetry.lock",
            "go.mod",
            "Cargo.toml",
            "Procfile web: ./serve",
        ];
        let expected = [
            "Bun",
            "npm",
            "uv",
            "Bundler",
            "pnpm",
            "Yarn",
            "Poetry",
            "Go",
            "Cargo",
            "a Procfile",
        ];
        for (skipped, with) in expected.into_iter().enumerate() {
            let mut project = project(&order[skipped..]);
            project.built = Some("./build/server".to_owned());
            assert_eq!(detect(&project).unwrap().with, with);
        }
    }

    #[test]
    fn the_start_script_is_that_of_package_json_else_its_main_else_index_js() {
        for (package, start) in [
            (
                r#"{"scripts":{"start":"bun server/index.ts"}}"#,
                "bun server/index.ts",
            ),
            (
                r#"{"scripts":{"start":"node s.js"},"main":"m.js"}"#,
                "node s.js",
            ),
            (r#"{"scripts":{"test":"x"},"main":"m.js"}"#, "node m.js"),
            (r#"{"scripts":{"start":""},"main":"m.js"}"#, "node m.js"),
            ("{}", "node index.js"),
            ("not json", "node index.js"),
            (
                r#"{"scripts":{"start":"next start -p $PORT"},"dependencies":{"next":"15"}}"#,
                "./node_modules/.bin/next start -p $PORT",
            ),
        ] {
            let file = format!("package.json {package}");
            let (setup, found) = found(&["package-lock.json", &file]);
            assert_eq!(
                (setup.as_str(), found.as_str()),
                ("npm ci", start),
                "{package}"
            );
        }
        let (_, none) = found(&["package-lock.json"]);
        assert_eq!(none, "node index.js");
    }

    #[test]
    fn a_procfile_says_how_what_has_no_start_script_is_started() {
        let web = "Procfile web: gunicorn app:app";
        assert_eq!(found(&["uv.lock", web]).1, "uv run gunicorn app:app");
        assert_eq!(
            found(&["poetry.lock", web]).1,
            "poetry run gunicorn app:app"
        );
        let web = "Procfile web: bundle exec puma -p $PORT";
        assert_eq!(found(&["Gemfile.lock", web]).1, "bundle exec puma -p $PORT");
    }

    #[test]
    fn a_binary_is_the_last_that_is_thought_of_and_nothing_is_nothing() {
        let mut project = project(&["README.md"]);
        assert_eq!(detect(&project), None);
        project.built = Some("./build/server".to_owned());
        let found = detect(&project).unwrap();
        assert_eq!(
            (found.setup, found.start.as_str()),
            (None, "./build/server")
        );
    }
}
