//! Server-sent events, as far as the daemon writes them.

/// Cuts a byte stream into server-sent events (kind, data).
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    kind: String,
    data: String,
}

impl SseParser {
    /// Takes bytes, cut anywhere, and gives the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<(String, String)> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            if let Some(kind) = line.strip_prefix("event: ") {
                kind.clone_into(&mut self.kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data);
            } else if line.is_empty() && !self.data.is_empty() {
                events.push((std::mem::take(&mut self.kind), std::mem::take(&mut self.data)));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_stream_is_cut() {
        let text = b":\n\nevent: stdout\ndata: {\"data\":\"aGk=\"}\n\nevent: exit\ndata: {\"exit_code\":3}\n\n";
        for cut in 0..text.len() {
            let mut parser = SseParser::default();
            let mut events = parser.push(&text[..cut]);
            events.extend(parser.push(&text[cut..]));
            let kinds: Vec<_> = events.iter().map(|(kind, _)| kind.as_str()).collect();
            assert_eq!(kinds, ["stdout", "exit"], "cut at {cut}");
        }
    }
}
