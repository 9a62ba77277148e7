//! DNS over TCP (RFC 7766): two bytes of length before each message.

use super::answer::Transport;
use super::compile::Zones;

/// Longest query that is read; a real one is under 600 bytes. A longer one ends the session.
const MAX_QUERY: usize = 4096;
/// Answers that may wait for the client to read before more queries are taken.
const MAX_WAITING: usize = 16 * 1024;
/// No compiled answer is longer.
const MAX_ANSWER: usize = 4096;

/// One TCP connection to the resolver: bytes in, bytes out. The owner moves them and closes when [`Session::ended`].
#[derive(Default)]
pub struct Session {
    input: Vec<u8>,
    output: Vec<u8>,
    ended: bool,
    answered: u64,
}

impl Session {
    pub fn new() -> Session {
        Session::default()
    }

    /// Takes bytes from the client and answers every query that is complete; gives how many bytes were taken. Fewer than
    /// all: call again after output was read. `seed` orders addresses as in [`Zones::answer`]; each query of a session
    /// gets an order of its own.
    pub fn input(&mut self, zones: &Zones, vpc: usize, bytes: &[u8], seed: u64) -> usize {
        let mut taken = 0;
        while !self.ended {
            if self.output.len() > MAX_WAITING {
                return taken;
            }
            let wanted = match self.input[..] {
                [high, low, ..] => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => 2,
            };
            if wanted > 2 + MAX_QUERY {
                self.ended = true;
                break;
            }
            if self.input.len() < wanted {
                let more = (wanted - self.input.len()).min(bytes.len() - taken);
                if more == 0 {
                    return taken;
                }
                self.input.extend_from_slice(&bytes[taken..taken + more]);
                taken += more;
                continue;
            }
            if wanted == 2 {
                // A length of zero: nobody sends that.
                self.ended = true;
                break;
            }
            self.answer(zones, vpc, seed);
            self.input.clear();
        }
        bytes.len()
    }

    /// What waits to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `n` bytes of [`Session::output`] have been sent.
    pub fn sent(&mut self, n: usize) {
        self.output.drain(..n.min(self.output.len()));
    }

    /// True if nothing more will be read: close once the output is sent.
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn answer(&mut self, zones: &Zones, vpc: usize, seed: u64) {
        let start = self.output.len();
        self.output.resize(start + 2 + MAX_ANSWER, 0);
        let length = zones.answer(
            vpc,
            &self.input[2..],
            seed.wrapping_add(self.answered),
            &mut self.output[start + 2..],
            Transport::Tcp,
        );
        self.answered += 1;
        if length == 0 {
            self.output.truncate(start);
            self.ended = true;
            return;
        }
        self.output[start..start + 2].copy_from_slice(&(length as u16).to_be_bytes());
        self.output.truncate(start + 2 + length);
    }
}
