//! The arguments of what changes who gets how many of the new requests.

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::super::complete;
use super::{Expecting, Target};
use crate::deploy::AppName;

/// `weight`.
#[derive(Debug, Args)]
pub struct Weight {
    /// The slot: its name, or the id or label of its release; `APP:SLOT` names the app too
    #[arg(value_name = "SLOT", add = ArgValueCandidates::new(complete::slots))]
    pub slot: Target,
    /// Per cent of new requests; 100 is a promotion
    #[arg(value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub weight: u8,
    /// What it expects.
    #[command(flatten)]
    pub expecting: Expecting,
}

/// `route`.
#[derive(Debug, Args)]
pub struct Route {
    /// The app, unless one of the slots names it
    #[arg(value_name = "APP", add = ArgValueCandidates::new(complete::apps))]
    pub app: Option<AppName>,
    /// The slot that is active; nothing is changed if it is not
    #[arg(long, value_name = "SLOT", add = ArgValueCandidates::new(complete::slots))]
    pub from: Target,
    /// The slot that takes its place
    #[arg(long, value_name = "SLOT", add = ArgValueCandidates::new(complete::slots))]
    pub to: Target,
    /// What it expects.
    #[command(flatten)]
    pub expecting: Expecting,
}

/// `abort`.
#[derive(Debug, Args)]
pub struct Abort {
    /// The app
    #[arg(value_name = "APP", add = ArgValueCandidates::new(complete::apps))]
    pub app: Option<AppName>,
    /// What it expects.
    #[command(flatten)]
    pub expecting: Expecting,
}

/// `pause`, `resume`.
#[derive(Debug, Args)]
pub struct Pause {
    /// The app
    #[arg(value_name = "APP", add = ArgValueCandidates::new(complete::apps))]
    pub app: Option<AppName>,
    /// What it expects.
    #[command(flatten)]
    pub expecting: Expecting,
}

/// `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// The slot: its name, or the id or label of its release; `APP:SLOT` names the app too
    #[arg(value_name = "SLOT", add = ArgValueCandidates::new(complete::slots))]
    pub slot: Target,
    /// Also if nothing would serve then: every new request is refused with 503 at once
    #[arg(long)]
    pub force: bool,
    /// What it expects.
    #[command(flatten)]
    pub expecting: Expecting,
}
