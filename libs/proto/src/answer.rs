//! Answers made of bytes that caches hold encoded.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, encode_varint, encoded_len_varint};

/// An encoded message, as chunks that are written one after the other. It stands for those messages of `tao.v1` whose fields
/// caches hold encoded already: no decoding, no encoding, one copy into the HTTP/2 frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    chunks: Vec<Bytes>,
    len: usize,
}

impl Answer {
    /// An empty message.
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// A message from its generated form.
    pub fn encode(message: &impl prost::Message) -> Self {
        let mut answer = Self::new();
        answer.push_raw(message.encode_to_vec().into());
        answer
    }

    /// Bytes of the message.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no fields.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends whole fields, tags included.
    pub fn push_raw(&mut self, fields: Bytes) {
        if !fields.is_empty() {
            self.len += fields.len();
            self.chunks.push(fields);
        }
    }

    /// Appends a message, bytes or string field.
    pub fn push_field(&mut self, number: u32, content: Bytes) {
        self.push_raw(field_head(number, content.len()));
        self.push_raw(content);
    }

    /// Appends a message field whose content is another answer.
    pub fn push_answer(&mut self, number: u32, content: Self) {
        self.push_raw(field_head(number, content.len));
        self.len += content.len;
        self.chunks.extend(content.chunks);
    }

    /// Appends a string field, unless it is empty.
    pub fn push_str(&mut self, number: u32, text: &str) {
        if !text.is_empty() {
            let mut field = Vec::with_capacity(field_len(number, text.len()));
            put_field_head(number, text.len(), &mut field);
            field.extend_from_slice(text.as_bytes());
            self.push_raw(field.into());
        }
    }

    /// Appends an integer field, unless it is 0.
    pub fn push_int(&mut self, number: u32, value: i64) {
        if value != 0 {
            let mut field = Vec::with_capacity(12);
            put_int(number, value as u64, &mut field);
            self.push_raw(field.into());
        }
    }

    /// The message, in pieces.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The message in one piece.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.len);
        prost::Message::encode_raw(self, &mut out);
        out.into()
    }
}

/// The tag and length of a length-delimited field.
fn field_head(number: u32, len: usize) -> Bytes {
    let mut head = Vec::with_capacity(12);
    put_field_head(number, len, &mut head);
    head.into()
}

/// Writes the tag and length of a length-delimited field.
pub fn put_field_head(number: u32, len: usize, out: &mut Vec<u8>) {
    encode_varint(u64::from(number) << 3 | 2, out);
    encode_varint(len as u64, out);
}

/// Writes an integer field, unless it is 0.
pub fn put_int(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        encode_varint(u64::from(number) << 3, out);
        encode_varint(value, out);
    }
}

/// Bytes that an integer field takes.
pub const fn int_len(number: u32, value: u64) -> usize {
    if value == 0 { 0 } else { encoded_len_varint((number as u64) << 3) + encoded_len_varint(value) }
}

/// Bytes that a length-delimited field takes, tag and length included.
pub const fn field_len(number: u32, content: usize) -> usize {
    encoded_len_varint((number as u64) << 3) + encoded_len_varint(content as u64) + content
}

impl prost::Message for Answer {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for chunk in &self.chunks {
            buf.put_slice(chunk);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Fields that this type doesn't look into are kept as they come.
        let mut field = Vec::new();
        match wire_type {
            WireType::Varint => {
                encode_varint(u64::from(tag) << 3, &mut field);
                encode_varint(prost::encoding::decode_varint(buf)?, &mut field);
            }
            WireType::LengthDelimited => {
                let mut content = Bytes::new();
                prost::encoding::bytes::merge(wire_type, &mut content, buf, ctx)?;
                put_field_head(tag, content.len(), &mut field);
                field.extend_from_slice(&content);
            }
            WireType::SixtyFourBit | WireType::ThirtyTwoBit | WireType::StartGroup | WireType::EndGroup => {
                return prost::encoding::skip_field(wire_type, tag, buf, ctx);
            }
        }
        self.push_raw(field.into());
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.len
    }

    fn clear(&mut self) {
        *self = Self::new();
    }
}
