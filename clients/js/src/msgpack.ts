/**
 * MessagePack, limited to values that JSON has, each in its shortest form.
 *
 * https://github.com/msgpack/msgpack/blob/master/spec.md
 */
import type { Codec } from "./codec.js";

const TWO_32 = 2 ** 32;
const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true });

/** The option `codec` for MessagePack over WebSocket. */
export const msgpack: Codec = {
  subprotocol: "tidings.v1.msgpack",
  encode,
  decode(frame) {
    if (typeof frame === "string") throw new TypeError("a text frame under the MessagePack subprotocol");
    return decode(frame);
  },
};

/** Encodes a value. As in JSON, `undefined` is left out of objects and null elsewhere. */
export function encode(value: unknown): Uint8Array<ArrayBuffer> {
  const writer = new Writer();
  writer.value(value);
  return writer.bytes();
}

/** Decodes a buffer with exactly one value. Throws RangeError or TypeError for anything else. */
export function decode(buffer: ArrayBuffer): unknown {
  const reader = new Reader(buffer);
  const value = reader.value();
  if (!reader.atEnd) throw new RangeError("bytes after the value");
  return value;
}

class Writer {
  #view = new DataView(new ArrayBuffer(256));
  #at = 0;

  bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#view.buffer, 0, this.#at);
  }

  value(value: unknown): void {
    if (typeof value === "string") this.#text(value);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "boolean") this.#put(value ? 0xc3 : 0xc2);
    else if (value === null || typeof value !== "object") this.#put(0xc0);
    else if (hasJsonForm(value)) this.value(value.toJSON());
    else if (Array.isArray(value)) {
      this.#head(value.length, 0x90, 15, 0xdc);
      for (const item of value) this.value(item);
    } else {
      const fields = Object.entries(value).filter((field) => field[1] !== undefined);
      this.#head(fields.length, 0x80, 15, 0xde);
      for (const [key, item] of fields) {
        this.#text(key);
        this.value(item);
      }
    }
  }

  #text(value: string): void {
    const bytes = utf8.encode(value);
    const { length } = bytes;
    if (length > 31 && length < 256) this.#put(0xd9, length);
    else this.#head(length, 0xa0, 31, 0xda);
    const at = this.#reserve(length);
    new Uint8Array(this.#view.buffer).set(bytes, at);
  }

  #number(value: number): void {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      if (!Number.isFinite(value)) return this.#put(0xc0); // as JSON does
      this.#put(0xcb);
      const at = this.#reserve(8); // may replace the view
      this.#view.setFloat64(at, value);
    } else if (value >= 0) {
      if (value < 0x80) this.#put(value);
      else if (value < 0x100) this.#put(0xcc, value);
      else if (value < 0x10000) this.#sized(0xcd, 2, value);
      else if (value < TWO_32) this.#sized(0xce, 4, value);
      else this.#wide(0xcf, value);
    } else if (value >= -0x20) this.#put(value & 0xff);
    else if (value >= -0x80) this.#put(0xd0, value & 0xff);
    else if (value >= -0x8000) this.#sized(0xd1, 2, value & 0xffff);
    else if (value >= -0x80000000) this.#sized(0xd2, 4, value >>> 0);
    else this.#wide(0xd3, value);
  }

  /** Writes a length: in the tag itself up to `most`, else in 16 or 32 bits after `tag16`. */
  #head(length: number, tag: number, most: number, tag16: number): void {
    if (length <= most) this.#put(tag | length);
    else if (length < 0x10000) this.#sized(tag16, 2, length);
    else this.#sized(tag16 + 1, 4, length);
  }

  #put(...bytes: number[]): void {
    const at = this.#reserve(bytes.length);
    bytes.forEach((byte, index) => this.#view.setUint8(at + index, byte));
  }

  #sized(tag: number, size: 2 | 4, value: number): void {
    this.#put(tag);
    const at = this.#reserve(size);
    if (size === 2) this.#view.setUint16(at, value);
    else this.#view.setUint32(at, value);
  }

  #wide(tag: number, value: number): void {
    this.#put(tag);
    const at = this.#reserve(8);
    this.#view.setInt32(at, Math.floor(value / TWO_32));
    this.#view.setUint32(at + 4, value >>> 0);
  }

  #reserve(size: number): number {
    const at = this.#at;
    this.#at += size;
    if (this.#at > this.#view.byteLength) {
      const grown = new Uint8Array(Math.max(this.#at, this.#view.byteLength * 2));
      grown.set(new Uint8Array(this.#view.buffer));
      this.#view = new DataView(grown.buffer);
    }
    return at;
  }
}

/** Whether a value defines its own JSON form, as a Date does. */
function hasJsonForm(value: object): value is { toJSON(): unknown } {
  return "toJSON" in value && typeof value.toJSON === "function";
}

class Reader {
  readonly #view: DataView;
  #at = 0;

  constructor(buffer: ArrayBuffer) {
    this.#view = new DataView(buffer);
  }

  get atEnd(): boolean {
    return this.#at === this.#view.byteLength;
  }

  value(): unknown {
    const tag = this.#uint(1);
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.#object(tag & 15);
    if (tag < 0xa0) return this.#array(tag & 15);
    if (tag < 0xc0) return this.#text(tag & 31);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xca:
        return this.#view.getFloat32(this.#take(4));
      case 0xcb:
        return this.#view.getFloat64(this.#take(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#uint((1 << (tag - 0xcc)) as 1 | 2 | 4);
      case 0xcf:
        return this.#uint(4) * TWO_32 + this.#uint(4);
      case 0xd0:
        return this.#view.getInt8(this.#take(1));
      case 0xd1:
        return this.#view.getInt16(this.#take(2));
      case 0xd2:
        return this.#view.getInt32(this.#take(4));
      case 0xd3:
        return this.#view.getInt32(this.#take(4)) * TWO_32 + this.#uint(4);
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#uint((1 << (tag - 0xd9)) as 1 | 2 | 4));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#uint(tag === 0xdc ? 2 : 4));
      case 0xde:
      case 0xdf:
        return this.#object(this.#uint(tag === 0xde ? 2 : 4));
      default:
        throw new TypeError(`no JSON counterpart: 0x${tag.toString(16)}`);
    }
  }

  #array(length: number): unknown[] {
    const items: unknown[] = [];
    for (let index = 0; index < length; index++) items.push(this.value());
    return items;
  }

  #object(length: number): Record<string, unknown> {
    const fields: [string, unknown][] = [];
    for (let index = 0; index < length; index++) {
      const key = this.value();
      if (typeof key !== "string") throw new TypeError("a key that is no text");
      fields.push([key, this.value()]);
    }
    return Object.fromEntries(fields); // defines `__proto__` as a field, where assignment would not
  }

  #text(length: number): string {
    return text.decode(new Uint8Array(this.#view.buffer, this.#take(length), length));
  }

  #uint(size: 1 | 2 | 4): number {
    const at = this.#take(size);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #take(size: number): number {
    const at = this.#at;
    if (at + size > this.#view.byteLength) throw new RangeError("the value is cut off");
    this.#at += size;
    return at;
  }
}
