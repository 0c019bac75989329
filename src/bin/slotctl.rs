//! `slotctl`: asks slotd, shows what it answers.

use std::process::ExitCode;

fn main() -> ExitCode {
    slot::cli::main()
}
