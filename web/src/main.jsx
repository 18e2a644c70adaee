import { render } from 'preact';
import { loadConversations } from './chat/conversations.js';
import { follow, reconnect } from './cluster/live.js';
import { takeKey } from './session.js';
import { App } from './ui/App.jsx';
import './style/main.css';

// A new address opened in a page that is open already only changes what is behind the #.
addEventListener('hashchange', async () => {
    if (await takeKey()) reconnect();
});

// Back in view, or in a network: no need to wait for the next try.
addEventListener('online', reconnect);

loadConversations();
render(<App />, document.getElementById('app'));
takeKey().then(follow);
