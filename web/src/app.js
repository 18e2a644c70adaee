document.getElementById('app').textContent = 'lingua';
