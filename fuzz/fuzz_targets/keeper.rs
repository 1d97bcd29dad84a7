//! Packets between keeper and master: what is understood survives.

#![no_main]

use libfuzzer_sys::fuzz_target;
use supervisor_protocol::keeper::{FromKeeper, MAX_PACKET, ToKeeper};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = ToKeeper::decode(data) {
        let packet = message.encode();
        assert!(packet.len() < MAX_PACKET);
        assert_eq!(ToKeeper::decode(&packet), Ok(message));
    }
    if let Ok(message) = FromKeeper::decode(data) {
        let packet = message.encode();
        assert!(packet.len() < MAX_PACKET);
        assert_eq!(FromKeeper::decode(&packet), Ok(message));
    }
});
