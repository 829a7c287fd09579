//! Bodies of guests' answers (RFC 9112, 6 and 7): taken from one buffer, and put into another as the client gets
//! them. Pure.

use std::fmt::Write;

use axum::http::{Method, StatusCode, header};
use bytes::{Buf, BufMut, BytesMut};

use crate::proxy::relay::head::values;

/// Bytes of a chunk's first line.
const CHUNK_LINE_LEN_MAX: usize = 4096;
/// Bytes and fields of trailers.
const TRAILERS_LEN_MAX: usize = 64 * 1024;
const TRAILERS_MAX: usize = 128;
/// What ends a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// Everything until the guest ends the connection.
    UntilEnd,
}

/// Where in chunks a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Before a chunk's length.
    Length,
    /// Before so many bytes of a chunk.
    Data(u64),
    /// Before the end of a chunk's line.
    End,
    /// After the last chunk.
    Trailers,
}

impl Body {
    /// How the body of an answer is told from what follows.
    ///
    /// # Errors
    /// There is more than one way to tell.
    pub fn of(
        method: &Method,
        status: StatusCode,
        fields: &[httparse::Header<'_>],
    ) -> Result<Body, &'static str> {
        let length = announced(status, fields)?;
        let is_empty = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_empty || method == Method::HEAD {
            return Ok(Body::Length(0));
        }
        let mut codings = values(fields, &header::TRANSFER_ENCODING);
        if let Some(coding) = codings.next() {
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            if !is_chunked || codings.next().is_some() {
                return Err("its transfer coding is unknown");
            }
            return Ok(Body::Chunked(Chunk::Length));
        }
        Ok(length.map_or(Body::UntilEnd, Body::Length))
    }

    /// Moves what has come of the body to `out`, as the client gets it; whether that was the last.
    ///
    /// # Errors
    /// What has come is no such body.
    pub fn take(
        &mut self,
        received: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<bool, &'static str> {
        match self {
            Body::Length(left) => {
                take_up_to(left, received, |data| out.put_slice(data));
                Ok(*left == 0)
            }
            Body::UntilEnd => {
                put_chunk(out, received);
                received.clear();
                Ok(false)
            }
            Body::Chunked(chunk) => loop {
                let before = (*chunk, received.len());
                if chunk.take(received, out)? {
                    return Ok(true);
                }
                if before == (*chunk, received.len()) {
                    return Ok(false);
                }
            },
        }
    }

    /// The guest has ended the connection: puts what is due then to `out`; whether the body is whole.
    pub fn end(self, out: &mut BytesMut) -> bool {
        let is_whole = self == Body::UntilEnd;
        if is_whole {
            out.put_slice(LAST_CHUNK);
        }
        is_whole
    }
}

impl Chunk {
    /// Takes one step; whether the body is whole then. Without a change there is not enough.
    fn take(&mut self, received: &mut BytesMut, out: &mut BytesMut) -> Result<bool, &'static str> {
        match self {
            Chunk::Length => match httparse::parse_chunk_size(received) {
                Ok(httparse::Status::Complete((len, size))) => {
                    received.advance(len);
                    *self = if size == 0 { Chunk::Trailers } else { Chunk::Data(size) };
                }
                Ok(httparse::Status::Partial) if received.len() < CHUNK_LINE_LEN_MAX => {}
                _ => return Err("a chunk's length is none"),
            },
            Chunk::Data(left) => {
                take_up_to(left, received, |data| put_chunk(out, data));
                if *left == 0 {
                    *self = Chunk::End;
                }
            }
            Chunk::End => {
                if !b"\r\n".starts_with(&received[..received.len().min(2)]) {
                    return Err("a chunk is longer than it says");
                }
                if 2 <= received.len() {
                    received.advance(2);
                    *self = Chunk::Length;
                }
            }
            Chunk::Trailers => {
                // Who wants them says so, and comes the other way.
                let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
                match httparse::parse_headers(received, &mut fields) {
                    Ok(httparse::Status::Complete((len, _))) => {
                        received.advance(len);
                        out.put_slice(LAST_CHUNK);
                        return Ok(true);
                    }
                    Ok(httparse::Status::Partial) if received.len() < TRAILERS_LEN_MAX => {}
                    _ => return Err("its trailers are none"),
                }
            }
        }
        Ok(false)
    }
}

/// The length that an answer announces; to HEAD and with 304 it has no such body all the same. None where a transfer
/// coding counts instead, or where there must be none (RFC 9110, 8.6).
///
/// # Errors
/// There are several, or it is no number.
pub fn announced(
    status: StatusCode,
    fields: &[httparse::Header<'_>],
) -> Result<Option<u64>, &'static str> {
    let is_coded = values(fields, &header::TRANSFER_ENCODING).next().is_some();
    if is_coded || status.is_informational() || status == StatusCode::NO_CONTENT {
        return Ok(None);
    }
    let mut lengths = values(fields, &header::CONTENT_LENGTH);
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.any(|other| other != length) {
        return Err("its lengths contradict each other");
    }
    let digits = length.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(length).ok().filter(|_| digits);
    let length = length.and_then(|text| text.parse().ok());
    length.map(Some).ok_or("its length is none")
}

/// Takes at most `left` bytes, and counts them.
fn take_up_to(left: &mut u64, received: &mut BytesMut, put: impl FnOnce(&[u8])) {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
    put(&received[..count]);
    received.advance(count);
    *left -= count as u64;
}

/// Writes a chunk. None without bytes: that would be the last one.
fn put_chunk(out: &mut BytesMut, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    // Writing to memory does not fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.put_slice(data);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: Body = Body::Chunked(Chunk::Length);

    /// What a client gets of a guest's bytes that come in pieces, and what is left over.
    fn pass(mut body: Body, pieces: &[&[u8]]) -> Result<(bool, Vec<u8>, Vec<u8>), &'static str> {
        let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
        let mut is_whole = false;
        for piece in pieces {
            received.put_slice(piece);
            is_whole = is_whole || body.take(&mut received, &mut out)?;
        }
        let is_whole = is_whole || body.end(&mut out);
        Ok((is_whole, out.to_vec(), received.to_vec()))
    }

    /// The data of a chunked body that is well formed.
    fn data(mut chunks: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let httparse::Status::Complete((len, size)) =
                httparse::parse_chunk_size(chunks).unwrap()
            else {
                panic!("{chunks:?}")
            };
            let size = usize::try_from(size).unwrap();
            all.extend_from_slice(&chunks[len..len + size]);
            assert_eq!(&chunks[len + size..len + size + 2], b"\r\n");
            chunks = &chunks[len + size + 2..];
            if size == 0 {
                assert!(chunks.is_empty());
                return all;
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        let all = pass(Body::Length(4), &[b"12", b"34next"]).unwrap();
        assert_eq!(all, (true, b"1234".to_vec(), b"next".to_vec()));
        assert!(!pass(Body::Length(4), &[b"123"]).unwrap().0, "cut off");
        let (is_whole, out, left) = pass(Body::UntilEnd, &[b"12", b"", b"34"]).unwrap();
        assert_eq!((is_whole, data(&out), left.len()), (true, b"1234".to_vec(), 0));
        let text = b"3;name=\"x\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nnext";
        for at in 0..text.len() {
            let (is_whole, out, left) = pass(CHUNKED, &[&text[..at], &text[at..]]).unwrap();
            assert!(is_whole, "{at}");
            assert_eq!(data(&out), b"abc0123456789");
            assert_eq!(left, b"next", "{at}");
        }
        assert!(!pass(CHUNKED, &[b"3\r\nabc\r\n"]).unwrap().0, "without its last chunk");
    }

    #[test]
    fn chunks_that_are_none_are_told() {
        let long = [b"1;".as_slice(), &[b'x'; CHUNK_LINE_LEN_MAX]].concat();
        let trailers =
            [b"0\r\n".as_slice(), &b"X: 1\r\n".repeat(TRAILERS_MAX + 1), b"\r\n"].concat();
        for bad in [
            b"x\r\n".as_slice(),
            b"-1\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"11111111111111111\r\n",
            b"0\r\n no field\r\n\r\n",
            &long,
            &trailers,
        ] {
            let told = pass(CHUNKED, &[bad]);
            assert!(
                told.is_err(),
                "{}: {told:?}",
                String::from_utf8_lossy(&bad[..bad.len().min(40)])
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_a_guest_sends_is_passed_on_alike_in_pieces(
            text in prop::collection::vec(prop::sample::select(b"03aF;\r\n :x".to_vec()), 0..60),
            at in 0_usize..60,
        ) {
            let at = at.min(text.len());
            for body in [CHUNKED, Body::Length(7), Body::UntilEnd] {
                let whole = pass(body, &[&text]);
                let pieces = pass(body, &[&text[..at], &text[at..]]);
                prop_assert_eq!(whole.is_ok(), pieces.is_ok());
                if let (Ok((is_whole, _, left)), Ok(pieces)) = (whole, pieces) {
                    prop_assert_eq!((is_whole, left), (pieces.0, pieces.2));
                }
            }
        }
    }
}
