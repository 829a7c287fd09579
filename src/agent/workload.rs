//! What a guest's workload does and says, as it comes.

use bytes::Bytes;
use hyper::Method;
use volant_protocol::{FrameKind, WORKLOAD_UPGRADE, WorkloadReport};

use crate::agent::frames::FrameReader;
use crate::agent::{AgentError, Connection, Payload, Stream, Upgraded, printable, upgrade};

/// The stream of one guest's workload; nobody else follows it meanwhile.
#[derive(Debug)]
pub struct WorkloadStream {
    frames: FrameReader<Upgraded>,
    _connection: Connection,
}

/// What comes from a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadOutput {
    /// Bytes of stdout, never empty.
    Stdout(Bytes),
    /// Bytes of stderr, never empty.
    Stderr(Bytes),
    /// How it is; its texts are bounded and printable.
    Report(WorkloadReport),
}

/// `GET /v1/workload`: follows the workload.
///
/// # Errors
/// [`AgentError::Refused`] with status 404 when the guest has none.
pub async fn workload(stream: impl Stream) -> Result<WorkloadStream, AgentError> {
    let (stream, connection) =
        upgrade(stream, Method::GET, "/v1/workload", Payload::default(), WORKLOAD_UPGRADE).await?;
    Ok(WorkloadStream { frames: FrameReader::new(stream), _connection: connection })
}

impl WorkloadStream {
    /// The next output or report. Cancel-safe.
    ///
    /// # Errors
    /// [`AgentError`] when the guest goes away, breaks the protocol, or has another follower.
    pub async fn next(&mut self) -> Result<WorkloadOutput, AgentError> {
        loop {
            let frame = self.frames.next().await?;
            match frame.kind {
                _ if frame.payload.is_empty() => {}
                FrameKind::Stdout => return Ok(WorkloadOutput::Stdout(frame.payload)),
                FrameKind::Stderr => return Ok(WorkloadOutput::Stderr(frame.payload)),
                FrameKind::Report => {
                    let report = serde_json::from_slice(&frame.payload);
                    let mut report: WorkloadReport = report
                        .map_err(|error| AgentError::Protocol(format!("no report: {error}")))?;
                    report.reason = printable(&report.reason);
                    if let Some(error) =
                        report.last_exit.as_mut().and_then(|exit| exit.error.as_mut())
                    {
                        *error = printable(error);
                    }
                    return Ok(WorkloadOutput::Report(report));
                }
                _ => return Err(AgentError::Protocol("a frame of another stream".to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use volant_protocol::{Frame, WorkloadCondition};

    use super::*;

    async fn follow(frames: &[Frame]) -> Vec<Result<WorkloadOutput, AgentError>> {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let mut bytes = BytesMut::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        let guest = async {
            let mut request = [0; 1024];
            let count = far.read(&mut request).await.unwrap();
            assert!(request[..count].starts_with(b"GET /v1/workload HTTP/1.1\r\n"));
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: volant-workload\r\n\r\n";
            far.write_all(head.as_bytes()).await.unwrap();
            far.write_all(&bytes).await.unwrap();
            drop(far);
        };
        let host = async {
            let mut stream = workload(near).await.unwrap();
            let mut all = Vec::new();
            while all.last().is_none_or(Result::is_ok) {
                all.push(stream.next().await);
            }
            all
        };
        tokio::join!(guest, host).1
    }

    #[tokio::test]
    async fn texts_of_a_report_are_made_harmless() {
        let report = WorkloadReport {
            condition: WorkloadCondition::Failed,
            reason: format!("\x1b[2J{}", "x".repeat(5000)),
            exits: 1,
            last_exit: None,
            dropped_bytes: 0,
        };
        let payload = serde_json::to_vec(&report).unwrap().into();
        let all = follow(&[
            Frame { kind: FrameKind::Stdout, payload: Bytes::from_static(b"hello") },
            Frame { kind: FrameKind::Report, payload },
        ])
        .await;
        let [Ok(WorkloadOutput::Stdout(text)), Ok(WorkloadOutput::Report(report)), Err(_)] =
            &all[..]
        else {
            panic!("{all:?}")
        };
        assert_eq!(text.as_ref(), b"hello");
        assert!(report.reason.starts_with(" [2Jx") && report.reason.len() <= 512);
    }

    #[tokio::test]
    async fn foreign_frames_and_broken_reports_end_the_stream() {
        for (kind, text) in [(FrameKind::Exit, "{}"), (FrameKind::Report, "{}")] {
            let all = follow(&[Frame { kind, payload: Bytes::from_static(text.as_bytes()) }]).await;
            assert!(matches!(all[..], [Err(AgentError::Protocol(_))]), "{all:?}");
        }
    }
}
