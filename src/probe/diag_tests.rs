//! Datagrams as Linux 6.18 sent them for two sockets, and what a hostile kernel might send.

use proptest::prelude::*;

use super::*;

/// 127.0.0.1:20002, made in the cgroup with inode 1.
const V4: &str = "7c000000140002000000000051630000020a00004e2200007f00000100000000000000000000000000000000000000000000000000000000000000000200000000000000000000000000000080000000000000003f970000050008000000000008000f00000000000c00150001000000000000000600160052000000";
/// [::]:20003 with `IPV6_V6ONLY`.
const V6: &str = "840000001400020000000000516300000a0a00004e23000000000000000000000000000000000000000000000000000000000000000000000000000003000000000000000000000000000000800000000000000040970000050008000000000005000b000100000008000f00000000000c00150001000000000000000600160012000000";
const DONE: &str = "1400000003000200000000005163000000000000";

fn bytes(hex: &[&str]) -> Vec<u8> {
    let hex = hex.concat();
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
#[cfg(target_endian = "little")]
fn recorded_datagrams_name_address_inode_and_cgroup() {
    let mut found = Vec::new();
    assert_eq!(read(&bytes(&[V4, V6]), &mut found).unwrap(), Dump::More);
    assert_eq!(read(&bytes(&[DONE]), &mut found).unwrap(), Dump::Done);
    let expected = [
        ("127.0.0.1:20002", false, 0x973f),
        ("[::]:20003", true, 0x9740),
    ];
    assert_eq!(
        found,
        expected.map(|(at, v6_only, inode)| Listener {
            at: at.parse().unwrap(),
            v6_only,
            inode,
            cgroup: Some(1),
        })
    );
}

#[test]
#[cfg(target_endian = "little")]
fn an_error_message_is_the_kernels_error() {
    let refused = bytes(&[
        "2400000002000000000000000000000",
        "0feffffff00000000000000000000000000000000",
    ]);
    let error = read(&refused, &mut Vec::new()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(2));
}

#[test]
#[cfg(target_endian = "little")]
fn a_datagram_that_is_cut_anywhere_never_panics() {
    let whole = bytes(&[V4, V6, DONE]);
    for length in 0..whole.len() {
        let _may_fail = read(&whole[..length], &mut Vec::new());
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(
        batch in proptest::collection::vec(any::<u8>(), 0..200),
        length in 0_u32..200,
    ) {
        let mut batch = batch;
        if batch.len() >= HEADER {
            batch[0..4].copy_from_slice(&length.to_ne_bytes());
            batch[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        }
        let _may_fail = read(&batch, &mut Vec::new());
    }
}
