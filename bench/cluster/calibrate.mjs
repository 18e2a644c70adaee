export async function calibrate() { throw new Error('unwritten'); }
