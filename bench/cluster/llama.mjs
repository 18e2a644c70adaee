export class Llama { constructor() { this.there = false; this.words = 'llama.cpp: not present'; } }
